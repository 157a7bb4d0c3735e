"""A web server of the standard library, written for port 8000, as its command line says."""

import hashlib
import json
import os
import secrets
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

NAME = secrets.token_hex(8)
STATE = {"well": True, "ready_with": None, "seen": 0}
GO = threading.Semaphore(0)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def pieces(self):
        """The body as it comes."""
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            while True:
                size = int(self.rfile.readline().split(b";")[0], 16)
                piece = self.rfile.read(size)
                self.rfile.readline()
                if not size:
                    return
                yield piece
        left = int(self.headers.get("Content-Length") or 0)
        while left:
            piece = self.rfile.read1(min(left, 65536))
            left -= len(piece)
            yield piece

    def body(self):
        return b"".join(self.pieces())

    def answer(self, status, kind, body=b"", headers=()):
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        if kind:
            self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def json(self, value, status=200):
        self.answer(status, "application/json", json.dumps(value).encode())

    def chunk(self, piece):
        self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        self.wfile.flush()

    def stream(self, kind):
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def everything(self):
        parts = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        name = parts.path.strip("/").split("/")[0] or "root"
        getattr(self, "at_" + name.replace("-", "_"), self.at_echo)(query)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = do_OPTIONS = everything

    def at_echo(self, query):
        body = self.body()
        headers = [[name.lower(), value] for name, value in self.headers.items()]
        self.json({"method": self.command, "path": self.path, "headers": headers, "body": body.decode("latin-1"), "server": NAME})

    def at_health(self, query):
        self.answer(200 if STATE["well"] else 500, "text/plain", b"ok")

    def at_ready(self, query):
        wanted = STATE["ready_with"]
        self.answer(200 if wanted is None or os.path.exists(wanted) else 503, "text/plain", b"ok")

    def at_unwell(self, query):
        STATE["well"] = False
        self.json(os.getpid())

    def at_unready(self, query):
        """Until there is a file of that name."""
        STATE["ready_with"] = query["until"]
        self.json(os.getpid())

    def at_upload(self, query):
        digest, size = hashlib.sha256(), 0
        for piece in self.pieces():
            digest.update(piece)
            size += len(piece)
            STATE["seen"] = size
        self.json({"bytes": size, "sha256": digest.hexdigest()})

    def at_seen(self, query):
        self.json(STATE["seen"])

    def at_download(self, query):
        self.stream("application/octet-stream")
        for number in range(int(query["chunks"])):
            self.chunk(bytes([number % 256]) * 65536)
        self.chunk(b"")

    def at_events(self, query):
        """The second event comes when somebody says `go`."""
        self.stream("text/event-stream")
        self.chunk(b"data: one\n\n")
        GO.acquire()
        self.chunk(b"data: two\n\n")
        self.chunk(b"")

    def at_go(self, query):
        GO.release()
        self.json(None)

    def at_cut(self, query):
        self.stream("text/plain")
        self.chunk(b"half")
        self.close_connection = True

    def at_talk(self, query):
        """Another protocol on the same connection: each line comes back."""
        self.send_response(101)
        self.send_header("Connection", "Upgrade")
        self.send_header("Upgrade", self.headers["Upgrade"])
        self.end_headers()
        self.wfile.write(b"hello\n")
        for line in self.rfile:
            self.wfile.write(b"you said " + line)
            if line == b"bye\n":
                break
        self.close_connection = True

    def at_status(self, query):
        self.body()
        self.answer(int(self.path.split("/")[2].split("?")[0]), "text/plain", b"as you say")

    def at_image(self, query):
        self.answer(200, "image/png", b"\x89PNG\xff")

    def at_text(self, query):
        self.answer(200, "text/plain; charset=utf-8", "grüße".encode())

    def at_nothing(self, query):
        self.body()
        self.send_response(204)
        self.end_headers()

    def at_page(self, query):
        hostile = [
            ("Set-Cookie", "session=stolen"),
            ("Content-Security-Policy", "default-src *"),
            ("Strict-Transport-Security", "max-age=1"),
            ("X-Own", "kept"),
        ]
        self.answer(200, "text/html", b"<script>alert(1)</script>", hostile)

    def at_moved(self, query):
        self.body()
        self.answer(307, None, b"", [("Location", "/echo/there")])

    def at_nap(self, query):
        self.body()
        with open(query["note"], "a") as note:
            note.write("begun\n")
        time.sleep(float(query["seconds"]))
        self.json({"slept": query["seconds"]})

    def at_variable(self, query):
        self.json(os.environ.get(query["name"]))

    def at_read(self, query):
        try:
            open(query["path"]).close()
            self.json("read")
        except OSError:
            self.json("refused")

    def at_die(self, query):
        print("dying as told", flush=True)
        os._exit(3)

    def log_message(self, form, *values):
        print("served " + form % values, flush=True)


if __name__ == "__main__":
    port = int(sys.argv[sys.argv.index("--port") + 1])
    print(f"listening on {port}", flush=True)
    server = ThreadingHTTPServer(("0.0.0.0", port), Handler)
    server.daemon_threads = True
    server.serve_forever()
