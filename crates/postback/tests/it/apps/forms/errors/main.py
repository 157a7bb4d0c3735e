import sys


def fail(text):
    raise ValueError(text)


def leave():
    sys.exit(3)
