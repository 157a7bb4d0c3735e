"""What a replica does, from its first frame to its last.

The main thread reads frames and carries calls out itself where it can: one at a time where an app works so, else in an
event loop if the app has async functions. No hand-over to another thread lies between such a call's arrival and its
function. While the main thread is busy (importing the app, or inside a call) the `_Watch` reads in its place, so that
cancels, and the end of the server, are noticed.
"""

import gc
import importlib.util
import os
import socket
import sys
import threading
import time

from . import calls, cerebrium, contract, failure, faults, frames, logs
from .channel import Channel

EXIT_FAILED = 1
EXIT_PROTOCOL = 70
SOCKET_VARIABLE = "POSTBACK_SOCKET_FD"


def main():
    descriptor = int(os.environ.pop(SOCKET_VARIABLE))
    os.set_inheritable(descriptor, False)
    channel = Channel(socket.socket(fileno=descriptor))
    if hasattr(sys, "set_int_max_str_digits"):
        # Integers survive whole; the server bounds the digits of what it sends.
        sys.set_int_max_str_digits(0)
    try:
        Replica(channel).run()
    except frames.ProtocolError as reason:
        broken(reason)


def broken(reason):
    """The worker broke the protocol: whatever follows on the socket cannot be understood."""
    os.write(2, "postback runner: the worker broke the protocol: {}\n".format(reason).encode("utf-8", "replace"))
    os._exit(EXIT_PROTOCOL)


class Replica:
    def __init__(self, channel):
        self._channel = channel
        self._calls = {}
        self._functions = []
        self._ready = False
        self._stopping = False
        self._here = None
        self._pool = None
        self._loop = None
        self._loop_lock = threading.Lock()
        self._streams = None
        self._watch = None
        self.logger = None

    def run(self):
        settings = self._first()
        self._prepare(settings)
        watch = _Watch(self)
        with watch:
            self._load()
        concurrency = settings["concurrency"]
        if any(function.contract == contract.ITEM for function in self._functions):
            concurrency = settings.get("item_concurrency", concurrency)
        self._streams.one_at_a_time = concurrency == 1
        if concurrency == 1:
            self._here = calls.MainThread(self, self._channel)
        else:
            self._pool = calls.Pool(self, concurrency)
            if any(function.is_async for function in self._functions):
                self._loop = calls.EventLoop(self)
        self._announce()
        if self._loop is not None:
            self._watch = watch
            self._loop.run_here(self._channel.fileno(), self._on_readable)
        while True:
            with self._channel.reading:
                # The watch may have read the next call meanwhile; then there is nothing to wait for.
                if not (self._here and self._here.waiting):
                    self.dispatch(self._channel.receive())
            while self._here and self._here.waiting:
                with watch:
                    self._here.run(self._here.waiting.popleft())

    def _first(self):
        with self._channel.reading:
            received = []
            while not received:
                received = self._channel.receive()
        kind, call, payload = received.pop(0)
        if kind != frames.START or call != 0:
            raise frames.ProtocolError("the first frame must be `start`, about call 0")
        settings = frames.read_start(payload)
        self.dispatch(received)
        return settings

    def _prepare(self, settings):
        os.environ.update(settings["environment"])
        os.environ.update(settings["secrets"])
        self._folder, self._entry = settings["folder"], settings["entry"]
        self._streams = logs.Streams(self._channel)
        self._streams.install()
        self.logger = logs.app_logger()
        faults.show()

    def _load(self):
        try:
            os.chdir(self._folder)
            self._functions = contract.functions_of(import_app(self._folder, self._entry))
            if not self._functions:
                raise NoFunctions(
                    "{} defines no function that could be called; define one whose name does not begin with an "
                    "underscore, such as `def predict(item, run_id, logger)` or `def run(prompt: str)`".format(self._entry)
                )
        except BaseException as error:
            self._streams.finish_all()
            self._channel.tell(frames.failed(*failure.describe(error)))
            os._exit(EXIT_FAILED)

    def _announce(self):
        # What the import left behind stays for good: a collection need not look at it again.
        gc.collect()
        gc.freeze()
        self._streams.finish_all()
        with self._channel.reading:
            self._ready = True
            self._channel.tell(frames.ready(sys.version.split()[0], [f.described() for f in self._functions]))
        self._leave_if_done()

    def dispatch(self, received):
        """Acts on frames, in their order. The caller holds `reading`, or is alone."""
        for kind, number, payload in received:
            if kind in (frames.CALL, frames.STREAM, frames.LIVE):
                self._begin(number, payload, kind)
            elif kind == frames.CANCEL:
                frames.read_empty(payload)
                call = self._calls.get(number)
                if call is not None:
                    call.cancel()
            elif kind == frames.STOP and number == 0:
                frames.read_empty(payload)
                self._stopping = True
                if self._ready:
                    self._leave_if_done()
            else:
                raise frames.ProtocolError("a frame of kind {} about call {}".format(kind, number))

    def _begin(self, number, payload, kind):
        index, _attempt, run_id, body = frames.read_call(number, payload)
        if not self._ready or self._stopping:
            raise frames.ProtocolError("a call before `ready` or after `stop`")
        if number in self._calls:
            raise frames.ProtocolError("call {} is under way already".format(number))
        if index >= len(self._functions):
            raise frames.ProtocolError("function {} of {}".format(index, len(self._functions)))
        function = self._functions[index]
        call = calls.Call(number, function, run_id, body, None if kind == frames.CALL else self._channel, kind == frames.LIVE)
        self._calls[number] = call
        self._channel.under_way.add(number)
        if function.is_async:
            self.loop().submit(call)
        else:
            (self._here or self._pool).submit(call)

    def loop(self):
        """The event loop, started when the first call needs it."""
        with self._loop_lock:
            if self._loop is None:
                self._loop = calls.EventLoop(self)
                self._loop.run_aside()
            return self._loop

    def _on_readable(self):
        """The event loop's look at the socket."""
        # A function may keep the loop from coming back here; the watch sees to it while calls are under way.
        self._watch.main_thread_is_busy()
        try:
            with self._channel.reading:
                self.dispatch(self._channel.poll())
        except frames.ProtocolError as reason:
            broken(reason)
        if not self._calls:
            self._watch.main_thread_is_free()

    def answer(self, call, answer):
        self._streams.finish(call.number)
        del self._calls[call.number]
        self._channel.answer(call.number, *answer)
        self._answered()

    def answer_all(self, answers):
        for call, _ in answers:
            self._streams.finish(call.number)
            del self._calls[call.number]
        self._channel.answer_all([(call.number, head, body) for call, (head, body) in answers])
        self._answered()

    def _answered(self):
        if self._watch is not None and not self._calls:
            self._watch.main_thread_is_free()
        if self._stopping:
            self._leave_if_done()

    def _leave_if_done(self):
        if self._stopping and not self._channel.under_way:
            self._streams.finish_all()
            faults.run_exit_functions()
            os._exit(0)

    def poll(self):
        """Reads in the main thread's place, unless that reads itself."""
        if self._channel.reading.acquire(blocking=False):
            try:
                self.dispatch(self._channel.poll())
            except frames.ProtocolError as reason:
                broken(reason)
            finally:
                self._channel.reading.release()


class NoFunctions(Exception):
    """The app has nothing to call."""


def import_app(folder, entry):
    """Imports the app's main file under its own name, so that nothing of `if __name__ == "__main__"` runs."""
    path = os.path.join(folder, entry)
    name = os.path.splitext(os.path.basename(entry))[0]
    own = os.path.dirname(path)
    sys.path[:0] = [folder] if os.path.samefile(own, folder) else [folder, own]
    sys.argv = [path]
    cerebrium.offer()
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None:
        raise ImportError("{} is not a Python file".format(entry))
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


class _Watch:
    """A thread that reads while the main thread is busy for long.

    It looks around every `_TICK` and rests when nothing happened for a while, so that a call costs the main thread
    two assignments, and an idle replica costs nothing.
    """

    _TICK = 0.05
    _RESTS_AFTER = 20

    def __init__(self, replica):
        self._replica = replica
        self._busy = 0
        self._turn = 0
        self._resting = False
        self._wake = threading.Event()
        threading.Thread(target=self._run, name="watch", daemon=True).start()

    def main_thread_is_busy(self):
        self._turn += 1
        self._busy = self._turn
        if self._resting:
            self._wake.set()

    def main_thread_is_free(self):
        self._busy = 0

    def __enter__(self):
        self.main_thread_is_busy()

    def __exit__(self, *_):
        self.main_thread_is_free()

    def _run(self):
        seen = idle = 0
        while True:
            time.sleep(self._TICK)
            busy = self._busy
            if busy and busy == seen:
                self._replica.poll()
            idle = 0 if busy else idle + 1
            seen = busy
            if idle >= self._RESTS_AFTER:
                self._rest()
                idle = 0

    def _rest(self):
        self._wake.clear()
        self._resting = True
        # The main thread looks at `_resting` after it has set `_busy`: one of the two sees the other.
        if not self._busy:
            self._wake.wait()
        self._resting = False
