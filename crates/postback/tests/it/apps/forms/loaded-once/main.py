"""What the module loads stays between calls."""

import itertools

calls = itertools.count(1)
loads = itertools.count(1)
LOADED = next(loads)


def run():
    return [LOADED, next(calls) > 0]
