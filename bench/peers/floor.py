"""The least that a Python worker behind a server can do: frames of JSON on a socket, in batches, standard library only.

A frame is its length in four bytes, big-endian, then {"id": …, "call": …}; the answer is {"id": …, "result": …}.
"""

import json
import socket
import struct
import sys

connection = socket.socket(socket.AF_UNIX)
connection.connect(sys.argv[1])
held = b""
while True:
    received = connection.recv(1 << 18)
    if not received:
        break
    held += received
    at, answers = 0, []
    while len(held) - at >= 4:
        (length,) = struct.unpack_from(">I", held, at)
        if len(held) - at - 4 < length:
            break
        frame = json.loads(held[at + 4 : at + 4 + length])
        at += 4 + length
        answer = json.dumps({"id": frame["id"], "result": {"result": "ok", "value": frame["call"]["value"]}}).encode()
        answers.append(struct.pack(">I", len(answer)) + answer)
    held = held[at:]
    if answers:
        connection.sendall(b"".join(answers))
