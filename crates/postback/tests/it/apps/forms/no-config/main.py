"""Not even a config file."""


def run(n):
    return n + 1
