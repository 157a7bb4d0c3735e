"""Code that takes too much. Each bomb bounds itself, for machines on which nothing else does: 300 processes or
threads, 256 MiB, 10 seconds.
"""

import fcntl
import os
import tempfile
import threading
import time

COUNT, BYTES, SECONDS = 300, 256 << 20, 10


def fine():
    return "fine"


def forks():
    children = []
    try:
        for _ in range(COUNT):
            child = os.fork()
            if child == 0:
                time.sleep(SECONDS)
                os._exit(0)
            children.append(child)
        time.sleep(SECONDS)
    finally:
        for child in children:
            os.kill(child, 9)
            os.waitpid(child, 0)
    return len(children)


def threads():
    done = threading.Event()
    started = []
    try:
        for _ in range(COUNT):
            thread = threading.Thread(target=done.wait, args=(SECONDS,))
            thread.start()
            started.append(thread)
        time.sleep(SECONDS)
    finally:
        done.set()
    return len(started)


def files():
    opened = []
    try:
        while len(opened) < 100_000:
            opened.append(os.open("/dev/null", os.O_RDONLY))
    finally:
        for descriptor in opened:
            os.close(descriptor)
    return len(opened)


def fills():
    folder = tempfile.mkdtemp()
    for number in range(4):
        with open(os.path.join(folder, str(number)), "wb") as file:
            for _ in range(64):
                file.write(os.urandom(1 << 20))
    time.sleep(SECONDS)
    return BYTES


def fills_one():
    with open(os.path.join(tempfile.mkdtemp(), "file"), "wb") as file:
        for _ in range(BYTES >> 20):
            file.write(os.urandom(1 << 20))
    return BYTES


def swells():
    ballast = bytearray()
    while len(ballast) < BYTES:
        ballast += b"x" * (4 << 20)
        time.sleep(0.005)
    time.sleep(SECONDS)
    return len(ballast)


def spins():
    until = time.monotonic() + SECONDS

    def spin():
        while time.monotonic() < until:
            pass

    for _ in range(3):
        if os.fork() == 0:
            spin()
            os._exit(0)
    spin()
    return "spun"


def leaves(path):
    """A daemon that left the session and its parents. It has a lock for as long as it lives."""
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            file = open(path + ".new", "w")
            fcntl.flock(file, fcntl.LOCK_EX)
            os.rename(path + ".new", path)
            time.sleep(600)
        os._exit(0)
    os.wait()
    while not os.path.exists(path):
        time.sleep(0.01)
    os._exit(3)
