"""What the benchmarks call: a function that does nothing, and one that never comes back."""

import asyncio


async def trivial(value):
    return {"result": "ok", "value": value}


async def never(value):
    await asyncio.sleep(10_000)
