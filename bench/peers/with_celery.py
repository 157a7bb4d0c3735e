"""FastAPI takes the call, Celery runs it and posts the webhook; Redis syncs what it acknowledged."""

import os

import httpx
from celery import Celery
from fastapi import FastAPI

tasks = Celery("tasks", broker=os.environ["REDIS_URL"])
tasks.conf.task_ignore_result = True
tasks.conf.broker_connection_retry_on_startup = True
app = FastAPI()
client = None


@tasks.task(acks_late=True)
def run(value, hook):
    global client
    client = client or httpx.Client()
    client.post(hook, json={"result": "ok", "value": value}).raise_for_status()


@app.post("/predict")
def predict(item: dict):
    return {"run_id": run.delay(item["value"], item["webhook_endpoint"]).id}
