"""Carrying out one call, and the places where calls run: the main thread, a pool of threads, an event loop.

Promises: each call ends with exactly one answer, whatever its function raises; a cancel reaches only the code of the
call that it is meant for.
"""

import collections
import collections.abc
import inspect
import queue
import signal
import threading
import time
import traceback
import types

from . import contract, encode, failure, frames
from .failure import CancelledByPostback
from .logs import CURRENT

_VALUES = (dict, list, str, int, float, bool, type(None), tuple)


class Call:
    __slots__ = (
        "number", "function", "run_id", "body", "cancelled", "inside", "interrupt", "lock", "started", "spent", "task", "_outlet",
        "_live", "_begun",
    )

    def __init__(self, number, function, run_id, body, outlet=None, live=False):
        # The channel, when what the function yields is to be told as it comes.
        self._outlet = outlet
        # Told to the caller itself, and to nobody after that.
        self._live = live
        self._begun = False
        self.number = number
        self.function = function
        self.run_id = run_id
        self.body = body
        self.cancelled = False
        # Whether the app's code runs, so that a cancel may raise in it.
        self.inside = False
        self.interrupt = None
        self.task = None
        self.lock = threading.Lock()
        self.started = 0.0
        self.spent = 0.0

    def cancel(self):
        with self.lock:
            if self.cancelled:
                return
            self.cancelled = True
            if self.interrupt is not None:
                self.interrupt(self)

    def enter(self, interrupt):
        self.started = time.perf_counter()
        with self.lock:
            self.interrupt = interrupt
            self.inside = True
            if self.cancelled:
                raise CancelledByPostback("the run was cancelled")

    def yielded(self, value):
        """Tells a value at once; what is no JSON the result will say."""
        if self._outlet is None:
            return
        try:
            _, encoded = encode.encode(value)
        except Exception:
            return
        self._outlet.tell(frames.output(self.number, encoded))

    def gathering(self):
        """Takes what a generator of this call yields."""
        return _Told(self) if self._live else _Collected(self)

    def begin_stream(self):
        """The caller learns that values come, before the first of them does."""
        if not self._begun:
            self._begun = True
            self._outlet.tell(frames.chunk(self.number, b""))

    def chunk(self, value):
        if type(value) is str:
            text = value.encode("utf-8", "replace")
        else:
            _, text = encode.encode(value)
        if len(text) > encode.RESULT_BYTES_MAX:
            raise encode.too_large(len(text))
        self.begin_stream()
        self._outlet.tell(frames.chunk(self.number, text))

    def leave(self):
        # To the microsecond: what lies below it is the clock's noise, and people read this number.
        self.spent = round((time.perf_counter() - self.started) * 1e3, 3)
        self.inside = False


def result_answer(call, value):
    """`(head, body)` of the frame that answers a call whose function returned `value`; never raises."""
    try:
        status, encoded = encode.encode(value)
        return frames.result_head(call.number, status, call.spent, len(encoded)), encoded
    except encode.Refused as refused:
        return refused_answer(call, refused)


def refused_answer(call, refused):
    cause = refused.__cause__
    kind = "ValueError" if cause is None else type(cause).__name__
    return frames.error(call.number, call.spent, refused.code, kind, failure.message(refused), None), b""


def error_answer(call, error):
    if call.inside or not call.spent:
        # The cancel arrived on the very way out.
        call.leave()
    if isinstance(error, encode.Refused):
        return refused_answer(call, error)
    if isinstance(error, contract.Invalid):
        # The caller's trouble, and no line of the app has run.
        return frames.error(call.number, call.spent, "user_error", "ValidationError", failure.message(error), None, 422), b""
    if call.cancelled:
        name = CancelledByPostback.__name__
        return frames.error(call.number, call.spent, "cancelled", name, "the run was cancelled", None), b""
    return frames.error(call.number, call.spent, "user_error", *failure.describe(error)), b""


class _Collected:
    """The values of a generator, bounded like the result that they become."""

    def __init__(self, call):
        self.values = []
        self._call = call
        self._size = 0

    def add(self, value):
        self._size += len(value) if isinstance(value, (str, bytes)) else 2
        if self._size > encode.RESULT_BYTES_MAX:
            raise encode.too_large("over {}".format(encode.RESULT_BYTES_MAX))
        self.values.append(value)
        self._call.yielded(value)

    def end(self):
        return self.values


class _Told:
    """The values of a generator, told one by one and kept nowhere."""

    def __init__(self, call):
        self._call = call

    def add(self, value):
        self._call.chunk(value)

    def end(self):
        self._call.begin_stream()
        return None


def _collect(iterator, call):
    gathered = call.gathering()
    for value in iterator:
        gathered.add(value)
    return gathered.end()


async def _settle(value, call):
    """The value behind what an async function is, or what a function returned in place of one."""
    if inspect.isawaitable(value):
        value = await value
    if isinstance(value, collections.abc.AsyncIterator):
        gathered = call.gathering()
        async for item in value:
            gathered.add(item)
        return gathered.end()
    if isinstance(value, collections.abc.Iterator):
        return _collect(value, call)
    return value


class Place:
    """Where synchronous calls run: what main thread and pool have in common."""

    def __init__(self, replica):
        self._replica = replica

    def carry_out(self, call, interrupt, calm):
        """Runs `call` in this thread; `calm` ends the time in which `interrupt` may raise here."""
        CURRENT.set(call.number)
        try:
            try:
                call.enter(interrupt)
                value = call.function.invoke(call.body, call.run_id, self._replica.logger)
                if type(value) not in _VALUES and isinstance(value, collections.abc.Iterator):
                    value = _collect(value, call)
            finally:
                calm(call)
            # The value's own code may run here too.
            goes_on = type(value) not in _VALUES and (
                inspect.isawaitable(value) or isinstance(value, collections.abc.AsyncIterator)
            )
        except BaseException as error:
            answer = error_answer(call, error)
        else:
            if goes_on:
                CURRENT.set(0)
                self._replica.loop().adopt(call, value)
                return
            answer = result_answer(call, value)
        self._replica.answer(call, answer)
        CURRENT.set(0)


class MainThread(Place):
    """Runs one call at a time in the main thread, where signals and most native libraries feel at home.

    A cancel comes as SIGURG, which nothing sends by default and which also ends a `sleep` or a blocking read.
    """

    def __init__(self, replica, channel):
        super().__init__(replica)
        self._channel = channel
        self._main = threading.get_ident()
        self.waiting = collections.deque()
        self.call = None
        signal.signal(signal.SIGURG, self._on_signal)

    def submit(self, call):
        self.waiting.append(call)

    def run(self, call):
        self.call = call
        try:
            self.carry_out(call, self._interrupt, self._calm)
        finally:
            self.call = None

    def _interrupt(self, call):
        signal.pthread_kill(self._main, signal.SIGURG)

    @staticmethod
    def _calm(call):
        call.leave()

    def _on_signal(self, _number, _frame):
        call = self.call
        if call is None or not call.cancelled or not call.inside:
            return
        if self._channel.puts_off():
            return
        call.inside = False
        raise CancelledByPostback("the run was cancelled")


class Pool(Place):
    """Runs calls in threads, of which it starts as many as there are calls at once."""

    def __init__(self, replica, size):
        super().__init__(replica)
        self._size = size
        self._threads = 0
        self._idle = 0
        self._lock = threading.Lock()
        self._queue = queue.SimpleQueue()

    def submit(self, call):
        with self._lock:
            if self._idle > 0:
                self._idle -= 1
            elif self._threads < self._size:
                self._threads += 1
                threading.Thread(target=self._work, name="call-{}".format(self._threads), daemon=True).start()
        self._queue.put(call)

    def _work(self):
        while True:
            self.carry_out(self._queue.get(), _Interrupt(threading.get_ident()), _calm_thread)
            with self._lock:
                self._idle += 1


class _Interrupt:
    """Raises in a thread at its next bytecode; a thread inside native code notices when it comes back."""

    __slots__ = ("_thread",)

    def __init__(self, thread):
        self._thread = thread

    def __call__(self, call):
        if call.inside:
            _raise_in(self._thread, CancelledByPostback)


def _calm_thread(call):
    with call.lock:
        call.leave()
    if call.cancelled:
        # Raised but not yet noticed: it must not hit the next call.
        _raise_in(threading.get_ident(), None)


def _raise_in(thread, error):
    import ctypes

    ctypes.pythonapi.PyThreadState_SetAsyncExc(
        ctypes.c_ulong(thread), None if error is None else ctypes.py_object(error)
    )


class EventLoop:
    """Runs async functions, in one thread for good, so that what they leave running goes on between calls."""

    def __init__(self, replica):
        # A third of what the runner would take to start, and of no use to most apps.
        import asyncio

        self._asyncio = asyncio
        self._replica = replica
        self._arriving = threading.Lock()
        self._arrived = []
        self._answers = []
        self._loop = asyncio.new_event_loop()
        self._thread = None

    def run_aside(self):
        """Runs in a thread of its own from now on."""
        threading.Thread(target=self._run, name="event-loop", daemon=True).start()

    def run_here(self, descriptor, on_readable):
        """Runs in this thread for ever, and calls `on_readable` when there is something to read."""
        self._loop.add_reader(descriptor, on_readable)
        self._run()

    def _run(self):
        self._thread = threading.get_ident()
        self._asyncio.set_event_loop(self._loop)
        while True:
            try:
                self._loop.run_forever()
            except BaseException:
                # A task that the app left running called `sys.exit`; that is no reason to strand the calls.
                traceback.print_exc()

    def submit(self, call):
        self.adopt(call, None)

    def adopt(self, call, value):
        """Takes over `call`, whose function has already returned the awaitable `value` (if it is one)."""
        if threading.get_ident() == self._thread:
            self._begin(call, value)
            return
        with self._arriving:
            self._arrived.append((call, value))
            first = len(self._arrived) == 1
        if first:
            self._loop.call_soon_threadsafe(self._start)

    def _start(self):
        with self._arriving:
            arrived, self._arrived = self._arrived, []
        for call, value in arrived:
            self._begin(call, value)

    def _begin(self, call, value):
        # The loop itself remembers its tasks only weakly; the call is known until it is answered.
        call.task = self._loop.create_task(self._carry_out(call, value))

    def _interrupt(self, call):
        self._loop.call_soon_threadsafe(lambda: call.task.cancel() if call.inside else None)

    async def _carry_out(self, call, value):
        # Each task has a context of its own.
        CURRENT.set(call.number)
        try:
            try:
                started = call.started
                call.enter(self._interrupt)
                if value is None:
                    value = call.function.invoke(call.body, call.run_id, self._replica.logger)
                else:
                    call.started = started
                if type(value) is types.CoroutineType:
                    value = await value
                if type(value) not in _VALUES:
                    value = await _settle(value, call)
            finally:
                call.leave()
        except BaseException as error:
            answer = error_answer(call, error)
        else:
            answer = result_answer(call, value)
        self._answers.append((call, answer))
        if len(self._answers) == 1:
            self._loop.call_soon(self._send)

    def _send(self):
        answers, self._answers = self._answers, []
        self._replica.answer_all(answers)
