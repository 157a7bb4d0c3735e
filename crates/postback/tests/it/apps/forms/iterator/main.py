"""Functions that return what somebody else iterates over."""


def squares(n):
    return map(lambda x: x * x, range(n))


async def later(n):
    async def tell():
        for index in range(n):
            yield index
    return tell()
