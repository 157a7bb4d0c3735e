import asyncio


async def words(n: int):
    for index in range(n):
        await asyncio.sleep(0)
        yield f"word {index}"
