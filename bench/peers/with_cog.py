"""Cog: one slot, or as many as COG_MAX_CONCURRENCY says."""

from cog import BasePredictor


class Predictor(BasePredictor):
    async def predict(self, value: int) -> str:
        return "ok"
