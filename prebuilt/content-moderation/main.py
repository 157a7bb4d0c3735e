"""Tells whether a picture shows nudity, and where: NudeNet, with the weights in its package."""

import base64
import http.client
import urllib.request

import cv2
import numpy
from nudenet import NudeDetector

PIXELS_MAX = 50_000_000
UNSAFE = (
    "ANUS_EXPOSED",
    "BUTTOCKS_EXPOSED",
    "FEMALE_BREAST_EXPOSED",
    "FEMALE_GENITALIA_EXPOSED",
    "MALE_GENITALIA_EXPOSED",
)
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


def _decoded(data):
    """The picture as OpenCV has it: rows of blue, green and red."""
    picture = cv2.imdecode(numpy.frombuffer(data, numpy.uint8), cv2.IMREAD_COLOR)
    if picture is None:
        raise Unusable("`image` is no picture that can be read; PNG, JPEG, WebP and BMP can")
    if picture.shape[0] * picture.shape[1] > PIXELS_MAX:
        raise Unusable(f"the picture has {picture.shape[1]} x {picture.shape[0]} pixels; {PIXELS_MAX} in all are allowed")
    return picture


detector = NudeDetector()


def _judged(picture, threshold):
    found = [
        {"label": part["class"], "score": round(float(part["score"]), 4), "box": [int(number) for number in part["box"]]}
        for part in detector.detect(picture)
    ]
    probability = max((part["score"] for part in found if part["label"] in UNSAFE), default=0.0)
    return {"safe": probability < threshold, "probability": probability, "detections": found}


def predict(item, run_id, logger):
    try:
        return _judged(_decoded(_received(item, "image")), float(item.get("threshold", 0.5)))
    except Unusable as reason:
        return {"status_code": 422, "message": str(reason)}
