"""RunPod's SDK with its local API."""

import runpod


def handler(job):
    return {"result": "ok", "value": job["input"]["value"]}


runpod.serverless.start({"handler": handler})
