"""The server under the asks of this folder: calls as users make them, and webhooks that arrive in an inbox."""

import json
import os
import sys
import urllib.error
import urllib.request

URL = os.environ["POSTBACK_URL"]
with open(os.environ["POSTBACK_CREDENTIALS"], encoding="utf-8") as file:
    CREDENTIALS = json.load(file)
PROJECT, PUBLIC, PRIVATE = (CREDENTIALS[key] for key in ("project_id", "public_key", "private_key"))
SECONDS = 600


def sample():
    """The request that `postback prebuilt show MODEL --sample` prints."""
    with open(sys.argv[1], encoding="utf-8") as file:
        return json.load(file)


def ask(path, body=None, key=PUBLIC):
    """Status and answer of a request: a POST of `body`, or else a GET."""
    headers = {"Authorization": key, "Content-Type": "application/json"}
    data = None if body is None else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(URL + path, data, headers), timeout=SECONDS) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as answer:
        return answer.code, json.load(answer)


def call(app, body):
    """The result of the app's `predict`."""
    status, answer = ask(f"/v4/{PROJECT}/{app}/predict", body)
    assert status == 200, (status, answer)
    return answer["result"]


def refused(app, body, *said):
    """That the call is answered with 422, and what its message must say."""
    status, answer = ask(f"/v4/{PROJECT}/{app}/predict", body)
    assert status == 422, (status, answer)
    message = answer["result"]["message"]
    assert all(part in message for part in said), (said, message)
    print(f"  refused: {message[:160]}")


def delivered(model, body, returns):
    """The result that comes to a webhook, from the path that pre-built models have had since 2023."""
    status, inbox = ask(f"/v2/projects/{PROJECT}/inboxes", {}, PRIVATE)
    assert status == 200, (status, inbox)
    status, answer = ask(f"/{model}-webhook/predict", {**body, "webhook_endpoint": inbox["url"]})
    assert status == 200 and answer["webhook_endpoint"] == inbox["url"], (status, answer)
    promise = f"We will return the {returns} to the endpoint provided when the task is complete."
    assert answer["message"] == promise, answer
    requests = f"/v2/projects/{PROJECT}/inboxes/{inbox['id']}/requests"
    for _ in range(SECONDS // 20):
        arrived = ask(f"{requests}?wait=20", key=PRIVATE)[1]["items"]
        if arrived:
            break
    assert len(arrived) == 1, arrived
    told = arrived[0]["body"]
    told = json.loads(told) if isinstance(told, str) else told
    assert told["run_id"] == answer["run_id"] and told["status_code"] == 200, told
    return told["result"]
