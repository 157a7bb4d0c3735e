"""BentoML: one worker."""

import bentoml


@bentoml.service(workers=1, logging={"access": {"enabled": False}})
class Bench:
    @bentoml.api
    def predict(self, value: int) -> dict:
        return {"result": "ok", "value": value}
