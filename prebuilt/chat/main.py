"""Talks: an instruction-tuned language model by llama.cpp, for OpenAI's clients and for plain calls."""

import json
import os
import random

from llama_cpp import Llama

# A repository of GGUF files on the hub, or one such file of this machine.
MODEL = os.environ.get("CHAT_MODEL") or "Qwen/Qwen2.5-1.5B-Instruct-GGUF"
FILE = os.environ.get("CHAT_FILE") or "*q4_k_m.gguf"
CONTEXT_TOKENS = int(os.environ.get("CHAT_CONTEXT") or 8192)
TOKENS_MAX = 4096
ROLES = ("system", "developer", "user", "assistant", "tool")


class _Counting(Llama):
    """Knows what its last answer took: the library says so of whole answers, and of streams it does not."""

    def generate(self, tokens, *arguments, **options):
        self._prompt_tokens, self._said_tokens, self._last_token = len(tokens), 0, None
        for token in super().generate(tokens, *arguments, **options):
            self._said_tokens, self._last_token = self._said_tokens + 1, token
            yield token

    def usage(self, finish_reason):
        # The token by which a model stops has no text, and is not counted in whole answers either.
        stopped = finish_reason == "stop" and self._last_token is not None and not self.detokenize([self._last_token])
        said = self._said_tokens - stopped
        return {"prompt_tokens": self._prompt_tokens, "completion_tokens": said, "total_tokens": self._prompt_tokens + said}


# Every layer goes to the GPU if the library was built for one, and none if it was not.
SETTINGS = {"n_gpu_layers": -1, "n_ctx": CONTEXT_TOKENS, "verbose": False}
if os.path.isfile(MODEL):
    model = _Counting(model_path=MODEL, **SETTINGS)
else:
    model = _Counting.from_pretrained(repo_id=MODEL, filename=FILE, **SETTINGS)


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
    return [
        {**message, "role": "system" if message["role"] == "developer" else message["role"], "content": _text(index, message)}
        for index, message in enumerate(messages)
    ]


def _text(index, message):
    """The content of a message: a text, or parts that are texts."""
    content = message.get("content")
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
    if not isinstance(parts, list) or not parts:
        raise Unusable(f"`messages[{index}]` must have a text as `content`")
    if not all(isinstance(part, dict) and isinstance(part.get("text"), str) for part in parts):
        raise Unusable(f"`messages[{index}]` must have texts as the parts of its `content`: this model sees and hears nothing")
    return "".join(part["text"] for part in parts)


def _form(options):
    """What `response_format` asks for, in the words of llama-cpp-python."""
    form = options.get("response_format")
    kind = form.get("type") if isinstance(form, dict) else form
    if kind in (None, "text"):
        return None
    if kind == "json_object":
        return {"type": kind}
    schema = form.get("json_schema") if kind == "json_schema" else None
    schema = schema.get("schema") if isinstance(schema, dict) else None
    if not isinstance(schema, dict):
        raise Unusable("the type of `response_format` must be `text`, `json_object`, or `json_schema` with a `schema`")
    return {"type": "json_object", "schema": schema}


def _settings(options):
    # Rather than an answer that leaves out what was asked for.
    for key in ("tools", "functions", "logprobs", "logit_bias", "audio"):
        if options.get(key):
            raise Unusable(f"this model has no `{key}`; leave it out")
    if options.get("n") not in (None, 1):
        raise Unusable("`n` must be 1: there is one answer to a call")
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
        "frequency_penalty": _number(options, "frequency_penalty", 0.0, -2, 2),
        "presence_penalty": _number(options, "presence_penalty", 0.0, -2, 2),
        "response_format": _form(options),
        # Without one the library counts on from the last, and begins with the same after every start.
        "seed": _number(options, "seed", random.randrange(2**31), 0, 2**31 - 1, int),
        "stop": stop,
        # Else it is the path of the file.
        "model": options["model"] if isinstance(options.get("model"), str) else "chat",
    }


def _answered(options, stream=False):
    """The model's answer in OpenAI's form, or its parts."""
    chosen = _settings(options)
    try:
        return model.create_chat_completion(stream=stream, **chosen)
    except ValueError as reason:
        # Such as more tokens than the context holds.
        raise Unusable(str(reason)) from None


def _wants_usage(options):
    wanted = options.get("stream_options")
    if wanted is None:
        return False
    if not isinstance(wanted, dict) or not isinstance(wanted.get("include_usage", False), bool):
        raise Unusable("`stream_options` must be an object such as {\"include_usage\": true}")
    return wanted.get("include_usage", False)


def run(messages=None, stream=False, **options):
    """`…/run/chat/completions`, as OpenAI's clients call it."""
    try:
        with_usage = _wants_usage(options)
        answer = _answered({"messages": messages, **options}, bool(stream))
        if not stream:
            return answer
        # Here, and not inside of the generator: what is refused is no stream.
        parts = iter(answer)
        first = next(parts, None)
    except (Unusable, ValueError) as reason:
        return _refused(reason)
    return _events(first, parts, with_usage)


def _refused(reason):
    return {"status_code": 422, "error": {"message": str(reason), "type": "invalid_request_error"}}


def _events(first, parts, with_usage):
    part = first
    while part is not None:
        yield _event({**part, "usage": None} if with_usage else part)
        last, part = part, next(parts, None)
    if with_usage and first is not None:
        yield _event({**first, "choices": [], "usage": model.usage(last["choices"][0]["finish_reason"])})
    yield "data: [DONE]\n\n"


def _event(part):
    return f"data: {json.dumps(part)}\n\n"


def predict(item, run_id, logger):
    try:
        answer = _answered(item)
    except Unusable as reason:
        return {"status_code": 422, "message": str(reason)}
    choice = answer["choices"][0]
    return {"result": choice["message"]["content"], "finish_reason": choice["finish_reason"], "usage": answer["usage"]}
