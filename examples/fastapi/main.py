"""A FastAPI app, served by uvicorn: any path, any method, streams and WebSockets."""

import asyncio
import os

from fastapi import FastAPI, HTTPException, Request, UploadFile, WebSocket, WebSocketDisconnect
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

app = FastAPI()
loaded = {"model": "a model would be loaded here, once per replica"}


class Prompt(BaseModel):
    prompt: str
    temperature: float = 1.0


@app.get("/health")
def health():
    """Says that the server is well; the config file names this path."""
    return {"status": "ok"}


@app.post("/generate")
def generate(prompt: Prompt, request: Request):
    """A JSON body is checked by its model. The id of the run comes in a header."""
    if prompt.temperature > 2:
        raise HTTPException(422, "the temperature is 2 at most")
    return {"text": prompt.prompt.upper(), "run_id": request.headers["x-request-id"]}


@app.get("/items/{item}")
def item(item: int, detail: bool = False):
    """Paths and queries are the app's own."""
    return {"item": item, "detail": detail, "replica": os.getpid()}


@app.post("/transcribe")
async def transcribe(file: UploadFile, language: str = "en"):
    """A multipart upload."""
    content = await file.read()
    return {"file": file.filename, "bytes": len(content), "language": language}


@app.get("/count")
async def count(to: int = 3):
    """Server-sent events reach the caller as they are made."""

    async def events():
        for number in range(1, to + 1):
            yield f"data: {number}\n\n"
            await asyncio.sleep(0.05)

    return StreamingResponse(events(), media_type="text/event-stream")


@app.websocket("/talk")
async def talk(socket: WebSocket):
    """A conversation."""
    await socket.accept()
    try:
        while True:
            await socket.send_text(f"you said {await socket.receive_text()}")
    except WebSocketDisconnect:
        pass
