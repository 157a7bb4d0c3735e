"""What the benchmarks call: a function that does nothing, one that gives back what it got, and one that never comes back."""

import asyncio


async def trivial(value):
    return {"result": "ok", "value": value}


async def echo(value, pad):
    return {"result": "ok", "value": value, "pad": pad}


async def never(value):
    await asyncio.sleep(10_000)
