"""What clients of OpenAI's API call: the function's address is their base URL."""

import json


async def run(messages, model, stream=False, **options):
    words = messages[-1]["content"].split()

    async def chunks():
        for word in words:
            yield f"data: {json.dumps({'choices': [{'delta': {'content': word}}]})}\n\n"
        yield "data: [DONE]\n\n"

    if stream:
        return chunks()
    return {"object": "chat.completion", "model": model, "choices": [{"message": {"role": "assistant", "content": " ".join(words)}}]}


def embed(input, model):
    return {"object": "list", "data": [{"embedding": [float(len(input))], "index": 0}], "model": model}
