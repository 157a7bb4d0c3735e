"""The socket to the worker: who may read it, who may write to it, and which calls are under way.

Promises: frames leave whole, whatever interrupts the thread that sends them; a call's log lines leave before its
answer and never after; every log line of the replica has a timestamp of its own.
"""

import os
import signal
import socket
import threading
import time

from . import frames

LINE_BYTES_MAX = 16384
_JOINED_BYTES_MAX = 1 << 20


class Channel:
    def __init__(self, connection):
        self._socket = connection
        self._reader = frames.Reader()
        self.reading = threading.Lock()
        # Reentrant only so that it can be asked for its owner: a signal handler or finalizer that prints may find its
        # own thread at any point of a send, and then leaves its lines in `_after`.
        self._sending = threading.RLock()
        self._after = []
        self._last_microsecond = 0
        self._cancel_due = False
        self.under_way = set()

    def fileno(self):
        return self._socket.fileno()

    def receive(self):
        """Frames, as soon as there are some. The caller holds `reading`."""
        return self._take(0)

    def poll(self):
        """Frames that are there already. The caller holds `reading`."""
        try:
            return self._take(socket.MSG_DONTWAIT)
        except BlockingIOError:
            return []

    def _take(self, flags):
        try:
            count = self._socket.recv_into(self._reader.room(), 0, flags)
        except BlockingIOError:
            raise
        except OSError:
            count = 0
        if count == 0:
            # The server is gone. Nobody is left to tell, and user code must not live on as an orphan.
            os._exit(0)
        return self._reader.received(count)

    def tell(self, frame):
        """Sends a frame about the replica as a whole."""
        with self._sending:
            self._send(frame)
        self._signal_again()

    def answer(self, call, head, body=b""):
        """Sends the one answer of a call; from here on the call is not under way."""
        with self._sending:
            self._send_after()
            self.under_way.discard(call)
            if len(body) <= _JOINED_BYTES_MAX:
                self._send(head + body)
            else:
                self._send(head, body)

    def answer_all(self, answers):
        """The same for several calls, in one write."""
        with self._sending:
            self._send_after()
            for call, _, _ in answers:
                self.under_way.discard(call)
            self._send(b"".join([head + body for _, head, body in answers]))

    def log(self, call, stream, lines):
        """Sends finished lines as the log of `call`, or of the replica if the call has been answered."""
        encoded = [_cut(line.encode("utf-8", "backslashreplace")) for line in lines]
        if self._sending._is_owned():
            self._after.append((call, stream, encoded))
            return
        with self._sending:
            self._send_after()
            self._send(self._log_frames(call, stream, encoded))
        self._signal_again()

    def puts_off(self):
        """Whether this thread is inside a send; if so its signal is repeated right after.

        An exception raised there would tear a frame in two.
        """
        self._cancel_due = self._sending._is_owned()
        return self._cancel_due

    def _signal_again(self):
        if self._cancel_due:
            self._cancel_due = False
            signal.raise_signal(signal.SIGURG)

    def _log_frames(self, call, stream, encoded):
        if call not in self.under_way:
            call = 0
        now = max(time.time_ns() // 1000, self._last_microsecond + 1)
        self._last_microsecond = now + len(encoded) - 1
        return b"".join([frames.log(call, stream, now + index, line) for index, line in enumerate(encoded)])

    def _send_after(self):
        while self._after:
            self._send(self._log_frames(*self._after.pop(0)))

    def _send(self, *parts):
        try:
            for part in parts:
                self._socket.sendall(part)
        except OSError:
            os._exit(0)

    def close(self):
        self._socket.close()


def _cut(line):
    if len(line) <= LINE_BYTES_MAX:
        return line
    return line[:LINE_BYTES_MAX].decode("utf-8", "ignore").encode("utf-8")
