"""pydantic models among other parameters."""

from typing import Optional

from pydantic import BaseModel


class Size(BaseModel):
    width: int
    height: int = 512


def run(prompt: str, size: Size, second: Optional[Size] = None):
    return [prompt, size.width, size.height, second is None]
