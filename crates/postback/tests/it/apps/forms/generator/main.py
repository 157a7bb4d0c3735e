def words(n):
    for index in range(n):
        yield f"word {index}"


def values():
    yield {"a": 1}
    yield [2]


def lines():
    yield "one\ntwo"


def breaks():
    yield "first"
    raise ValueError("no more")
