"""One pydantic model is the whole body."""

from typing import List, Optional

from pydantic import BaseModel


class Item(BaseModel):
    prompt: str
    steps: int = 20
    tags: Optional[List[str]] = None


def run(item: Item, run_id: str):
    return {"prompt": item.prompt, "steps": item.steps, "tags": item.tags, "run": run_id}


def echo(item: Item):
    return item
