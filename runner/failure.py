"""Exceptions as the people who debug an app want to read them: without our frames, and bounded."""

import os
import traceback

TRACEBACK_BYTES_MAX = 64 << 10
MESSAGE_BYTES_MAX = 16 << 10

_FOLDER = os.path.dirname(os.path.abspath(__file__)) + os.sep


class CancelledByPostback(BaseException):
    """Raised inside a function whose call was cancelled.

    Not an `Exception`, so that `except Exception` in an app does not swallow it.
    """


def describe(error):
    """`(type, message, traceback)` of an exception."""
    return type(error).__name__, message(error), formatted(error)


def message(error):
    try:
        text = str(error)
    except BaseException:
        text = "<the exception's own text could not be made>"
    if isinstance(error, SystemExit):
        text = "the function called sys.exit({})".format(text)
    return _bounded(text, MESSAGE_BYTES_MAX)


def formatted(error):
    try:
        own = error.__traceback__
        while own is not None and _is_ours(own.tb_frame.f_code.co_filename):
            own = own.tb_next
        lines = traceback.TracebackException(type(error), error, own).format()
        return _bounded("".join(lines), TRACEBACK_BYTES_MAX)
    except BaseException:
        # An app's exception may define anything, and formatting runs some of it.
        return "{}: <its traceback could not be formatted>\n".format(type(error).__name__)


def _is_ours(filename):
    return filename.startswith(_FOLDER) or filename.startswith("<frozen importlib")


def _bounded(text, most):
    """The head and, as it says more, three times as much of the tail."""
    encoded = text.encode("utf-8", "backslashreplace")
    if len(encoded) <= most:
        return encoded.decode("utf-8")
    gap = "\n… {} bytes left out …\n".format(len(encoded))
    room = most - len(gap.encode("utf-8"))
    head, tail = room // 4, room - room // 4
    gap = "\n… {} bytes left out …\n".format(len(encoded) - room)
    return encoded[:head].decode("utf-8", "ignore") + gap + encoded[-tail:].decode("utf-8", "ignore")
