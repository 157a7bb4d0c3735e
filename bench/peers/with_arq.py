"""FastAPI takes the call, arq runs it and posts the webhook; Redis syncs what it acknowledged."""

import os
from contextlib import asynccontextmanager

import httpx
from arq import create_pool
from arq.connections import RedisSettings
from fastapi import FastAPI

REDIS = RedisSettings.from_dsn(os.environ["REDIS_URL"])


async def run(context, value, hook):
    answer = await context["client"].post(hook, json={"result": "ok", "value": value})
    answer.raise_for_status()


async def begin(context):
    context["client"] = httpx.AsyncClient()


class Worker:
    functions = [run]
    redis_settings = REDIS
    max_jobs = 10
    poll_delay = 0.05
    keep_result = 0
    on_startup = begin


@asynccontextmanager
async def lifespan(application):
    application.state.queue = await create_pool(REDIS)
    yield


app = FastAPI(lifespan=lifespan)


@app.post("/predict")
async def predict(item: dict):
    job = await app.state.queue.enqueue_job("run", item["value"], item["webhook_endpoint"])
    return {"run_id": job.job_id}
