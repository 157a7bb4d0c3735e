import functools


def _twice(function):
    @functools.wraps(function)
    def inner(*args, **kwargs):
        return [function(*args, **kwargs)] * 2

    return inner


@_twice
def run(n):
    return n
