"""Tells what kind of file something is, by its content: Magika, with the model in its package."""

import base64
import http.client
import urllib.request

from magika import Magika

BYTES_MAX = 50 << 20


class Unusable(Exception):
    """What the request brings cannot be worked on; the caller gets 422 and these words."""


def _received(item, key):
    """The bytes that a request brings: base64 under `key`, or an address under `file_url`."""
    if item.get(key):
        text = str(item[key])
        # Browsers put `data:…;base64,` in front.
        text = text.partition(",")[2] if text.startswith("data:") else text
        try:
            data = base64.b64decode(text, validate=True)
        except ValueError:
            raise Unusable(f"`{key}` is no base64") from None
    elif item.get("file_url"):
        url = str(item["file_url"])
        if not url.startswith(("http://", "https://")):
            raise Unusable("`file_url` is no address that begins with http:// or https://")
        try:
            with urllib.request.urlopen(url, timeout=30) as answer:
                data = answer.read(BYTES_MAX + 1)
        except (OSError, ValueError, http.client.HTTPException) as reason:
            raise Unusable(f"`file_url` cannot be fetched: {reason}") from None
    else:
        raise Unusable(f"send the {key} as base64 under `{key}`, or its address under `file_url`")
    if len(data) > BYTES_MAX:
        raise Unusable(f"the {key} is larger than {BYTES_MAX} bytes")
    return data


magika = Magika()


def _identified(data):
    found = magika.identify_bytes(data)
    kind = found.output
    return {
        "label": str(kind.label),
        "description": kind.description,
        "mime_type": kind.mime_type,
        "group": kind.group,
        "extensions": list(kind.extensions),
        "is_text": kind.is_text,
        "score": round(float(found.score), 4),
    }


def predict(item, run_id, logger):
    try:
        return _identified(_received(item, "file"))
    except Unusable as reason:
        return {"status_code": 422, "message": str(reason)}
