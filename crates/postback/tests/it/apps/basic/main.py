"""Functions that do one thing each, for the tests of the built binary."""

import asyncio
import os
import time


def echo(value, run_id):
    return {"value": value, "run_id": run_id}


async def echo_later(value):
    await asyncio.sleep(0)
    return value


def identity(**everything):
    return everything


def speak(line):
    print(line)
    return None


def fail(message):
    raise ValueError(message)


def refuse():
    return {"status_code": 422, "reason": "not today"}


def nap(seconds, answer_bytes=0):
    time.sleep(seconds)
    return {"ballast": "x" * answer_bytes} if answer_bytes else seconds


def hold(path):
    """Goes on when the file is there."""
    while not os.path.exists(path):
        time.sleep(0.01)
    return "held"


def die(status):
    os._exit(status)


def not_json():
    return float("nan")


def note(path, value, ballast=""):
    """Leaves a line per execution, so that a test can count them."""
    with open(path, "a") as file:
        file.write(f"{value}\n")
    return value


def witness(path, value, ballast="", answer_bytes=0):
    """Leaves a line per execution that says when it began and where, and returns the same."""
    at, pid = time.time_ns() // 1000, os.getpid()
    with open(path, "a") as file:
        file.write(f"{value} {at} {pid}\n")
    result = {"value": value, "at": at, "pid": pid}
    if answer_bytes:
        result["ballast"] = "x" * answer_bytes
    return result


def _hidden():
    return "never"
