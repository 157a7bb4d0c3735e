"""2023 as its documentation showed it: a pydantic model that the function makes itself of the item."""

from typing import Optional

from pydantic import BaseModel, HttpUrl


class Item(BaseModel):
    prompt: str
    steps: Optional[int] = 20
    webhook_endpoint: Optional[HttpUrl] = None


def predict(item, run_id, logger):
    params = Item(**item)
    return {"prompt": params.prompt, "steps": params.steps, "told": params.webhook_endpoint is not None}
