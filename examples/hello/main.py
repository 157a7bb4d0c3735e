"""Functions with keyword parameters: each is an endpoint of its own."""

import asyncio
import time

greetings = {"en": "Hello", "de": "Hallo", "fr": "Bonjour"}  # loaded once per replica, as a model would be


def greet(name: str, run_id: str, language: str = "en"):
    """`run_id` is filled in by the server; the other parameters are the keys of the request's JSON body."""
    if language not in greetings:
        # A `status_code` in the result becomes the HTTP status.
        return {"status_code": 422, "message": f"no greeting in '{language}'; there are {', '.join(greetings)}"}
    print(f"greeting {name} in {language}")  # goes to the log of this run
    return {"greeting": f"{greetings[language]}, {name}!", "run_id": run_id}


async def wait(seconds: float = 1.0):
    """An `async` function: many of them wait side by side in one replica."""
    begun = time.monotonic()
    await asyncio.sleep(seconds)
    return {"waited": round(time.monotonic() - begun, 3)}


def count(to: int = 3):
    """A generator: a webhook gets its values as a list."""
    for number in range(1, to + 1):
        yield f"number {number}"


def divide(a: float, b: float):
    """Raises when `b` is 0: the run fails, and caller or webhook get the error's type, message and traceback."""
    return a / b


def _not_an_endpoint():
    """A leading underscore hides a function."""
