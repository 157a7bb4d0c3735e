"""A stand-in for a model that takes minutes: it waits, and says so.

One "minute" is ten rounds of ten seconds.
"""

import time
from typing import Optional

from pydantic import BaseModel

ROUNDS_PER_MINUTE = 10
SECONDS_PER_ROUND = 10


class Item(BaseModel):
    delayMins: Optional[int] = 3


def predict(item, run_id, logger):
    params = Item(**item)
    begun = time.monotonic()
    for _ in range(params.delayMins * ROUNDS_PER_MINUTE):
        time.sleep(SECONDS_PER_ROUND)
        logger.info(f"{time.monotonic() - begun:.0f} seconds elapsed")
    return {"result": f"Delayed for {params.delayMins} mins"}
