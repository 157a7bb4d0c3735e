"""Talks: an instruction-tuned language model by llama.cpp, for OpenAI's clients and for plain calls."""

import json
import os

from llama_cpp import Llama

# A repository of GGUF files on the hub, or one such file of this machine.
MODEL = os.environ.get("CHAT_MODEL") or "Qwen/Qwen2.5-1.5B-Instruct-GGUF"
FILE = os.environ.get("CHAT_FILE") or "*q4_k_m.gguf"
CONTEXT_TOKENS = int(os.environ.get("CHAT_CONTEXT") or 8192)
TOKENS_MAX = 4096
ROLES = ("system", "developer", "user", "assistant", "tool")

# Every layer goes to the GPU if the library was built for one, and none if it was not.
SETTINGS = {"n_gpu_layers": -1, "n_ctx": CONTEXT_TOKENS, "verbose": False}
if os.path.isfile(MODEL):
    model = Llama(model_path=MODEL, **SETTINGS)
else:
    model = Llama.from_pretrained(repo_id=MODEL, filename=FILE, **SETTINGS)


class Unusable(Exception):
    """What the request brings cannot be worked on; the caller gets 422 and these words."""


def _number(options, key, default, least, most, kind=float):
    value = options.get(key)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value <= most:
        raise Unusable(f"`{key}` must be a number from {least} to {most}")
    return kind(value)


def _conversation(options):
    messages = options.get("messages")
    if messages is None and options.get("prompt"):
        messages = [{"role": "user", "content": str(options["prompt"])}]
    if not isinstance(messages, list) or not messages:
        raise Unusable("send `messages`, a list of {\"role\", \"content\"}, or a `prompt`")
    for index, message in enumerate(messages):
        if not isinstance(message, dict) or message.get("role") not in ROLES:
            raise Unusable(f"`messages[{index}]` must have a `role`: {', '.join(ROLES)}")
        if not isinstance(message.get("content"), str):
            raise Unusable(f"`messages[{index}]` must have a text as `content`")
    return [{**message, "role": "system" if message["role"] == "developer" else message["role"]} for message in messages]


def _settings(options):
    stop = options.get("stop") or []
    stop = [stop] if isinstance(stop, str) else stop
    if not isinstance(stop, list) or len(stop) > 16 or not all(isinstance(text, str) for text in stop):
        raise Unusable("`stop` must be a text, or a list of up to 16")
    tokens = options.get("max_completion_tokens")
    tokens = {"max_tokens": tokens} if tokens is not None else options
    return {
        "messages": _conversation(options),
        "max_tokens": _number(tokens, "max_tokens", 512, 1, TOKENS_MAX, int),
        "temperature": _number(options, "temperature", 0.7, 0, 2),
        "top_p": _number(options, "top_p", 0.95, 0, 1),
        "top_k": _number(options, "top_k", 40, 0, 1000, int),
        "repeat_penalty": _number(options, "repeat_penalty", 1.0, 0.1, 10),
        "seed": _number(options, "seed", None, 0, 2**31 - 1, int),
        "stop": stop,
    }


def _answered(options, stream=False):
    """The model's answer in OpenAI's form, or its parts."""
    chosen = _settings(options)
    try:
        return model.create_chat_completion(stream=stream, **chosen)
    except ValueError as reason:
        # Such as more tokens than the context holds.
        raise Unusable(str(reason)) from None


def run(messages=None, stream=False, **options):
    """`…/run/chat/completions`, as OpenAI's clients call it."""
    try:
        answer = _answered({"messages": messages, **options}, bool(stream))
        if not stream:
            return answer
        # Here, and not inside of the generator: what is refused is no stream.
        parts = iter(answer)
        first = next(parts, None)
    except (Unusable, ValueError) as reason:
        return _refused(reason)
    return _events(first, parts)


def _refused(reason):
    return {"status_code": 422, "error": {"message": str(reason), "type": "invalid_request_error"}}


def _events(first, parts):
    if first is not None:
        yield f"data: {json.dumps(first)}\n\n"
    for part in parts:
        yield f"data: {json.dumps(part)}\n\n"
    yield "data: [DONE]\n\n"


def predict(item, run_id, logger):
    try:
        answer = _answered(item)
    except Unusable as reason:
        return {"status_code": 422, "message": str(reason)}
    choice = answer["choices"][0]
    return {"result": choice["message"]["content"], "finish_reason": choice["finish_reason"], "usage": answer["usage"]}
