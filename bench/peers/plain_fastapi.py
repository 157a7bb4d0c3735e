"""FastAPI without a queue: the function on the event loop, and in the thread pool."""

from fastapi import FastAPI

app = FastAPI()


@app.post("/async-def")
async def in_the_loop(item: dict):
    return {"result": "ok", "value": item["value"]}


@app.post("/def")
def in_a_thread(item: dict):
    return {"result": "ok", "value": item["value"]}
