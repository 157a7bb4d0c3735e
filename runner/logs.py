"""`print` and `logging` inside a call belong to that call.

`sys.stdout` and `sys.stderr` are replaced by streams that send each finished line to the worker, marked with the call
in whose context it was written: calls of one replica may overlap in threads and in asyncio. What native code writes
to the descriptors 1 and 2 bypasses them; the worker captures those as the replica's own log.
"""

import contextvars
import io
import logging
import os
import sys
import threading
from threading import get_ident

from . import frames
from .channel import LINE_BYTES_MAX

CURRENT = contextvars.ContextVar("postback_call", default=0)


class Streams:
    """Both streams, the lines begun on them, and whose they are."""

    def __init__(self, channel):
        self._channel = channel
        self.one_at_a_time = False
        self._begun = {}
        self._forked = False

    def install(self):
        sys.stdout = Stream(self, frames.STDOUT)
        sys.stderr = Stream(self, frames.STDERR)
        _mark_threads()
        os.register_at_fork(after_in_child=self._let_go)

    def _let_go(self):
        # A forked child shares the socket; a single byte from it would garble the parent's frames.
        self._forked = True
        self._begun.clear()
        self._channel.close()

    def _owner(self):
        call = CURRENT.get()
        if call == 0:
            # A thread that a call started has a context of its own, but remembers who started it.
            call = getattr(threading.current_thread(), "_postback_call", 0)
            if call == 0:
                return 0
        under_way = self._channel.under_way
        if call in under_way:
            return call
        # Left over from a call that has ended: a pool's thread, say, that now works for the present call.
        if self.one_at_a_time:
            return next(iter(list(under_way)), 0)
        return 0

    def write(self, stream, text):
        if self._forked:
            _write_all(stream, text.encode("utf-8", "backslashreplace"))
            return
        key = (self._owner(), stream, get_ident())
        if "\n" in text:
            *lines, text = (self._begun.pop(key, "") + text).split("\n")
            self._channel.log(key[0], stream, [_as_shown(line) for line in lines])
            if text:
                self._begun[key] = text
            return
        begun = self._begun.get(key, "")
        if "\r" in text or len(begun) < LINE_BYTES_MAX:
            self._begun[key] = _last_return(begun + text)

    def finish(self, call):
        """Sends the lines that a call began and did not end."""
        if not self._begun:
            return
        for key in [key for key in list(self._begun) if key[0] == call]:
            line = _as_shown(self._begun.pop(key, ""))
            if line:
                self._channel.log(call, key[1], [line])

    def finish_all(self):
        for call in {key[0] for key in list(self._begun)}:
            self.finish(call)


def _as_shown(line):
    """What a terminal would show of a line: a carriage return begins it anew (progress bars)."""
    return line.rstrip("\r").rpartition("\r")[2] if "\r" in line else line


def _last_return(text):
    head, _, tail = text.rpartition("\r")
    return tail if head and tail else text


def _write_all(descriptor, data):
    while data:
        data = data[os.write(descriptor, data) :]


def _mark_threads():
    start = threading.Thread.start

    def started(thread):
        thread._postback_call = CURRENT.get() or getattr(threading.current_thread(), "_postback_call", 0)
        return start(thread)

    started.__name__, started.__doc__ = start.__name__, start.__doc__
    threading.Thread.start = started


class Stream(io.TextIOBase):
    """One of the two, as far as programs use them."""

    def __init__(self, streams, number):
        self._streams = streams
        self._number = number
        self.buffer = _Bytes(self)

    encoding = "utf-8"
    errors = "backslashreplace"
    newlines = None
    line_buffering = True
    name = property(lambda self: "<stdout>" if self._number == frames.STDOUT else "<stderr>")
    mode = "w"

    def write(self, text):
        if not isinstance(text, str):
            raise TypeError("write() argument must be str, not {}".format(type(text).__name__))
        if text:
            self._streams.write(self._number, text)
        return len(text)

    def writable(self):
        return True

    def fileno(self):
        return self._number

    def isatty(self):
        return False

    def flush(self):
        pass

    def close(self):
        pass

    def reconfigure(self, **_):
        pass


class _Bytes(io.RawIOBase):
    """`sys.stdout.buffer`."""

    def __init__(self, stream):
        self._stream = stream

    def write(self, data):
        data = bytes(data)
        self._stream.write(data.decode("utf-8", "replace"))
        return len(data)

    def writable(self):
        return True

    def fileno(self):
        return self._stream.fileno()

    def close(self):
        pass


class _Lines(logging.Formatter):
    """Plain lines for information, the level in front of everything else."""

    def format(self, record):
        text = super().format(record)
        return text if record.levelno == logging.INFO else "{}: {}".format(record.levelname, text)


class _CurrentStdout(logging.StreamHandler):
    def __init__(self):
        logging.Handler.__init__(self)

    @property
    def stream(self):
        return sys.stdout


def app_logger():
    """The `logger` that `predict(item, run_id, logger)` gets."""
    logger = logging.getLogger("postback.app")
    if not logger.handlers:
        handler = _CurrentStdout()
        handler.setFormatter(_Lines())
        logger.addHandler(handler)
        logger.setLevel(logging.DEBUG)
        logger.propagate = False
    return logger
