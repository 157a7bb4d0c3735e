"""The frames on the wire: their bytes, and nothing else. `protocol/README.md` is the specification."""

import json
import struct

PROTOCOL = 1
LENGTH_MIN = 5
LENGTH_MAX = 128 << 20
RECEIVE_BYTES = 256 << 10

START, CALL, CANCEL, STOP, STREAM, LIVE = 1, 2, 3, 4, 5, 6
READY, FAILED, RESULT, ERROR, LOG, OUTPUT, CHUNK = 16, 17, 18, 19, 20, 21, 22
OUTPUT_BYTES_MAX = 64 << 10
STDOUT, STDERR = 1, 2

_LENGTH = struct.Struct(">I")
_CALL_HEAD = struct.Struct(">HH36s")
_FRAME_HEAD = struct.Struct(">IBI")
_RESULT_FRAME_HEAD = struct.Struct(">IBIHd")
_ERROR_FRAME_HEAD = struct.Struct(">IBId")
_LOG_FRAME_HEAD = struct.Struct(">IBIBQ")


class ProtocolError(Exception):
    """The peer sent what the protocol does not allow."""


class Reader:
    """Cuts the byte stream from the worker into frames.

    Bytes are received straight into `room()`; `received(n)` gives the frames that are complete by then as
    `(kind, call, payload)`.
    """

    def __init__(self):
        self._set_buffer(bytearray(RECEIVE_BYTES))
        self._begin = 0
        self._end = 0

    def _set_buffer(self, buffer):
        self._buffer = buffer
        self._view = memoryview(buffer)

    def room(self):
        return self._view[self._end :]

    def received(self, count):
        self._end += count
        frames = []
        begin, end, buffer, view = self._begin, self._end, self._buffer, self._view
        while end - begin >= _FRAME_HEAD.size:
            length, kind, call = _FRAME_HEAD.unpack_from(buffer, begin)
            if not LENGTH_MIN <= length <= LENGTH_MAX:
                raise bad_length(length)
            after = begin + 4 + length
            if after > end:
                break
            frames.append((kind, call, bytes(view[begin + 9 : after])))
            begin = after
        self._begin = begin
        self._make_room()
        return frames

    def _make_room(self):
        left = self._end - self._begin
        if left == 0:
            self._begin = self._end = 0
            if len(self._buffer) > RECEIVE_BYTES:
                self._set_buffer(bytearray(RECEIVE_BYTES))
            return
        needed = 4
        if left >= 4:
            (length,) = _LENGTH.unpack_from(self._buffer, self._begin)
            if not LENGTH_MIN <= length <= LENGTH_MAX:
                raise bad_length(length)
            needed += length
        if self._begin + needed <= len(self._buffer):
            return
        buffer = bytearray(max(needed, RECEIVE_BYTES))
        buffer[:left] = self._view[self._begin : self._end]
        self._set_buffer(buffer)
        self._begin, self._end = 0, left


def bad_length(length):
    return ProtocolError("a frame of {} bytes; {} to {} are allowed".format(length, LENGTH_MIN, LENGTH_MAX))


def read_start(payload):
    """The settings of a `start`, checked so far that what follows can rely on them."""
    settings = _object(payload, "start")
    if settings.get("protocol") != PROTOCOL:
        raise ProtocolError("the worker speaks protocol {!r}; this runner speaks {}".format(settings.get("protocol"), PROTOCOL))
    for key, kind in (("folder", str), ("entry", str), ("concurrency", int), ("environment", dict), ("secrets", dict)):
        if not isinstance(settings.get(key), kind):
            raise ProtocolError("start: `{}` is missing or of the wrong kind".format(key))
    if not isinstance(settings.get("item_concurrency", 1), int):
        raise ProtocolError("start: `item_concurrency` is of the wrong kind")
    return settings


def read_call(call, payload):
    """`(function, attempt, run_id, body)` of a `call`; the body is a view, not a copy."""
    if call == 0:
        raise ProtocolError("a call with the number 0")
    if len(payload) < _CALL_HEAD.size:
        raise ProtocolError("a call of {} bytes; its head alone has {}".format(len(payload), _CALL_HEAD.size))
    function, attempt, run_id = _CALL_HEAD.unpack_from(payload)
    try:
        return function, attempt, run_id.decode("ascii"), memoryview(payload)[_CALL_HEAD.size :]
    except UnicodeDecodeError:
        raise ProtocolError("a run id that is not ASCII") from None


def read_empty(payload):
    """The payload of a `cancel` or `stop`."""
    if payload:
        raise ProtocolError("a payload where none belongs")


def ready(python, functions):
    return _frame(READY, 0, to_json({"protocol": PROTOCOL, "python": python, "functions": functions}))


def failed(kind, message, traceback):
    return _frame(FAILED, 0, to_json({"type": kind, "message": message, "traceback": traceback}))


def result_head(call, status, milliseconds, size):
    """A `result` up to its JSON of `size` bytes, which follows on the wire and may be large."""
    return _RESULT_FRAME_HEAD.pack(15 + size, RESULT, call, status, milliseconds)


def error(call, milliseconds, code, kind, message, traceback, status=None):
    description = {"code": code, "type": kind, "message": message, "traceback": traceback}
    if status is not None:
        description["status"] = status
    description = to_json(description)
    return _ERROR_FRAME_HEAD.pack(13 + len(description), ERROR, call, milliseconds) + description


def log(call, stream, microseconds, line):
    return _LOG_FRAME_HEAD.pack(14 + len(line), LOG, call, stream, microseconds) + line


def output(call, value):
    """An `output` with the JSON of a value, which stays out when it is too long."""
    return _frame(OUTPUT, call, value if len(value) <= OUTPUT_BYTES_MAX else b"")


def chunk(call, text):
    """A `chunk` of text; the first of a call is empty."""
    return _frame(CHUNK, call, text)


def to_json(value):
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "replace")


def _frame(kind, call, payload):
    return _FRAME_HEAD.pack(5 + len(payload), kind, call) + payload


def _object(payload, name):
    try:
        value = json.loads(payload.decode("utf-8"))
    except ValueError as reason:
        raise ProtocolError("{}: its payload is no JSON ({})".format(name, reason)) from None
    if not isinstance(value, dict):
        raise ProtocolError("{}: its payload is no JSON object".format(name))
    return value
