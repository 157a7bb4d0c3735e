"""The worker's end of the wire, for tests: starts a real replica and speaks to it."""

import json
import os
import pathlib
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import textwrap
import unittest

RUNNER = pathlib.Path(__file__).resolve().parents[1]
GOLDEN = RUNNER.parent / "protocol" / "frames"
sys.path.insert(0, str(RUNNER.parent))

RUN_ID = "018bcfe5-687b-7000-8000-000000000001"
SECONDS = 20
START, CALL, CANCEL, STOP, STREAM, LIVE = 1, 2, 3, 4, 5, 6
READY, FAILED, RESULT, ERROR, LOG, OUTPUT, CHUNK = 16, 17, 18, 19, 20, 21, 22


def frame(kind, call, payload=b""):
    return struct.pack(">IBI", len(payload) + 5, kind, call) + payload


def read(payload_of, payload):
    """The payload of a frame from the runner as a dict of its fields."""
    if payload_of in (READY, FAILED, OUTPUT):
        return {"json": payload.decode("utf-8")}
    if payload_of == CHUNK:
        return {"text": payload.decode("utf-8")}
    if payload_of == RESULT:
        status, milliseconds = struct.unpack_from(">Hd", payload)
        return {"status": status, "milliseconds": milliseconds, "json": payload[10:].decode("utf-8")}
    if payload_of == ERROR:
        return {"milliseconds": struct.unpack_from(">d", payload)[0], "json": payload[8:].decode("utf-8")}
    stream, microseconds = struct.unpack_from(">BQ", payload)
    return {"stream": stream, "microseconds": microseconds, "line": payload[9:].decode("utf-8")}


class Answer:
    """What came back for one call: its log, and its result or error."""

    def __init__(self, kind, fields, lines):
        self.kind = kind
        self.status = fields.get("status")
        self.milliseconds = fields["milliseconds"]
        self.json = fields["json"]
        self.lines = lines

    @property
    def value(self):
        return json.loads(self.json)

    @property
    def text(self):
        return [line["line"] for line in self.lines]


class Replica:
    """A runner process with an app whose `main.py` is the given text."""

    def __init__(self, source="", concurrency=1, files=None, entry="main.py", environment=None, secrets=None, start=True, **more):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="runner-test-"))
        for name, text in {entry: source, **(files or {})}.items():
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(textwrap.dedent(text), encoding="utf-8")
        self.socket, theirs = socket.socketpair()
        self.socket.settimeout(SECONDS)
        self.process = subprocess.Popen(
            [sys.executable, str(RUNNER)],
            env={**os.environ, "POSTBACK_SOCKET_FD": str(theirs.fileno())},
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        theirs.close()
        self.lines = []
        self.functions = []
        self._buffer = b""
        if start:
            self.start(concurrency, entry, environment or {}, secrets or {}, **more)

    def start(self, concurrency, entry, environment, secrets, **more):
        settings = {
            "protocol": 1,
            "folder": str(self.folder),
            "entry": entry,
            "concurrency": concurrency,
            "environment": environment,
            "secrets": secrets,
            **more,
        }
        self.socket.sendall(frame(START, 0, json.dumps(settings).encode()))

    def ready(self):
        kind, call, fields = self.next()
        assert (kind, call) == (READY, 0), (kind, fields)
        self.functions = json.loads(fields["json"])["functions"]
        return self

    def next(self):
        """The next frame but for logs, which are kept."""
        while True:
            head = self._exactly(9)
            length, kind, call = struct.unpack(">IBI", head)
            fields = read(kind, self._exactly(length - 5))
            if kind != LOG:
                return kind, call, fields
            self.lines.append((call, fields))

    def next_line(self):
        """The next log line as `(call, fields)`."""
        if not self.lines:
            length, kind, call = struct.unpack(">IBI", self._exactly(9))
            fields = read(kind, self._exactly(length - 5))
            assert kind == LOG, (kind, fields)
            self.lines.append((call, fields))
        return self.lines.pop(0)

    def _exactly(self, count):
        while len(self._buffer) < count:
            data = self.socket.recv(1 << 20)
            if not data:
                raise EOFError("the replica closed its end; its stderr: {!r}".format(self.process.stderr.read()))
            self._buffer += data
        taken, self._buffer = self._buffer[:count], self._buffer[count:]
        return taken

    def send(self, *frames):
        self.socket.sendall(b"".join(frames))

    def request(self, number, name, body=b"", attempt=1, kind=CALL):
        names = [function["name"] for function in self.functions]
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        return frame(kind, number, struct.pack(">HH", names.index(name), attempt) + RUN_ID.encode() + body)

    def answers(self, *numbers):
        """The answers to these calls, by number, with the lines that came for each."""
        answers = {}
        while len(answers) < len(numbers):
            kind, call, fields = self.next()
            assert call in numbers and call not in answers, call
            answers[call] = Answer(kind, fields, [line for owner, line in self.lines if owner == call])
            self.lines = [(owner, line) for owner, line in self.lines if owner != call]
        return answers

    def call(self, name, body=b"", number=1):
        self.send(self.request(number, name, body))
        return self.answers(number)[number]

    def exit_status(self):
        return self.process.wait(SECONDS)

    def output(self):
        """What left on the raw descriptors, once the process has ended."""
        out, err = self.process.communicate(timeout=SECONDS)
        return out.decode(), err.decode()

    def close(self):
        self.socket.close()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(5)
        self.process.stdout.close()
        self.process.stderr.close()
        shutil.rmtree(self.folder, ignore_errors=True)


class ReplicaTest(unittest.TestCase):
    def replica(self, source="", **options):
        replica = Replica(source, **options)
        self.addCleanup(replica.close)
        return replica
