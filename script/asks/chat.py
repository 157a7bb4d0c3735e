"""The chat model in its real environment with tiny weights, by plain calls and by OpenAI's own client.

Usage: python chat.py SAMPLE, in an environment that has openai, with the variables that `script/models` sets.
"""

import concurrent.futures
import json
import time

import openai
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from server import PROJECT, PUBLIC, URL, call, delivered, refused, sample

MESSAGES = [
    {"role": "system", "content": "You are brief."},
    {"role": "user", "content": [{"type": "text", "text": "Good day"}]},
]
client = openai.OpenAI(base_url=f"{URL}/v4/{PROJECT}/chat/run", api_key=PUBLIC, max_retries=0)
created = client.chat.completions.create


def right(result):
    assert isinstance(result["result"], str) and result["finish_reason"] in ("stop", "length"), result
    assert result["usage"]["completion_tokens"] > 0, result


def told(stream):
    """The text of a stream, how it ended, and how many parts it came in."""
    parts = [ChatCompletionChunk.model_validate(part.model_dump(), strict=False) for part in stream]
    assert parts[0].choices[0].delta.role == "assistant", parts[0]
    assert len({part.id for part in parts}) == 1 and {part.object for part in parts} == {"chat.completion.chunk"}, parts
    text = "".join(part.choices[0].delta.content or "" for part in parts)
    return text, parts[-1].choices[0].finish_reason, len(parts)


right(call("chat", sample()))
right(delivered("chat", sample(), "answer"))
print("  plain calls have an answer, and so has a webhook")

answer = created(model="chat", messages=MESSAGES, max_tokens=30, seed=7)
ChatCompletion.model_validate(answer.model_dump())
said = answer.choices[0].message
assert said.role == "assistant" and said.content and answer.choices[0].finish_reason == "length", answer
assert answer.usage.completion_tokens == 30 and answer.usage.total_tokens == 30 + answer.usage.prompt_tokens, answer
assert answer.model == "chat", answer.model
print(f"  OpenAI's client, version {openai.__version__}, has an answer: {said.content!r}")

text, ended, parts = told(created(model="chat", messages=MESSAGES, max_tokens=30, seed=7, stream=True))
assert (text, ended) == (said.content, "length") and parts > 20, (text, ended, parts)
assert told(created(model="chat", messages=MESSAGES, max_tokens=30, seed=8, stream=True))[0] != text
print(f"  the same answer as a stream of {parts} parts, and another with another seed")

for ends in ({"max_tokens": 30}, {"max_tokens": 200, "stop": ["a", "e", "i", "o", "u"]}):
    whole = created(model="chat", messages=MESSAGES, seed=7, **ends)
    *parts, last = created(
        model="chat", messages=MESSAGES, seed=7, stream=True, stream_options={"include_usage": True}, **ends
    )
    assert last.choices == [] and last.usage.model_dump() == whole.usage.model_dump(), (last, whole.usage)
    assert all(part.choices and part.usage is None for part in parts), parts
print(f"  a stream says at its end what it took: {last.usage.total_tokens} tokens, as the whole answer does")

began = time.monotonic()
stream = created(model="chat", messages=MESSAGES, max_tokens=400, stream=True)
times = [time.monotonic() - began for _ in stream]
first, last = times[0], times[-1]
assert len(times) > 300 and first < last / 2, (len(times), first, last)
print(f"  a stream of {len(times)} parts begins after {first * 1000:.0f} ms and ends after {last * 1000:.0f} ms")

stopped = created(model="chat", messages=MESSAGES, max_tokens=200, stop=["a", "e", "i", "o", "u"])
assert stopped.choices[0].finish_reason == "stop", stopped
assert not set(stopped.choices[0].message.content) & set("aeiou"), stopped
print(f"  it stops before what it was told to: {stopped.choices[0].message.content!r}")

schema = {"type": "object", "properties": {"colour": {"enum": ["red", "blue"]}}, "required": ["colour"]}
form = {"type": "json_schema", "json_schema": {"name": "colour", "schema": schema}}
text = created(model="chat", messages=MESSAGES, max_tokens=100, response_format=form).choices[0].message.content
assert json.loads(text)["colour"] in ("red", "blue"), text
print(f"  asked for JSON of a schema, it says {text}")

with created(model="chat", messages=MESSAGES, max_tokens=400, stream=True) as left:
    next(iter(left))
began = time.monotonic()
with concurrent.futures.ThreadPoolExecutor(8) as threads:
    several = [threads.submit(lambda: told(created(model="chat", messages=MESSAGES, max_tokens=30, stream=True))) for _ in range(8)]
assert all(one.result()[1] == "length" for one in several)
print(f"  after a caller who left, eight at once are answered in {time.monotonic() - began:.1f} s")

for wrong, part in (
    ({"messages": [{"role": "god", "content": "x"}]}, "`messages[0]` must have a `role`"),
    ({"tools": [{"type": "function", "function": {"name": "x"}}]}, "this model has no `tools`"),
    ({"max_tokens": 0}, "`max_tokens` must be a number from 1 to 4096"),
    ({"messages": [{"role": "user", "content": "words " * 20_000}]}, "exceed context window"),
):
    for stream in (False, True):
        try:
            created(**{"model": "chat", "messages": MESSAGES, "stream": stream, **wrong})
        except openai.UnprocessableEntityError as error:
            assert part in error.body["message"] and error.body["type"] == "invalid_request_error", error
            print(f"  refused: {error.body['message'][:160]}")
        else:
            raise AssertionError(f"answered: {wrong}")
refused("chat", {}, "`messages`", "`prompt`")
