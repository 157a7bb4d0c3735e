"""Three calls meet in one replica, or none of them returns."""

import asyncio

waiting = []


async def meet(run_id):
    arrived = asyncio.get_running_loop().create_future()
    waiting.append(arrived)
    if len(waiting) == 3:
        for other in waiting:
            other.set_result(None)
        waiting.clear()
    await asyncio.wait_for(arrived, 50)
    return run_id
