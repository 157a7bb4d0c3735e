"""The first form of cerebrium.toml, and pydantic from the base image of its time."""

from pydantic import BaseModel


class Item(BaseModel):
    n: int


def predict(item, run_id, logger):
    return Item(**item).n * 2
