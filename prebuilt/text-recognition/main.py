"""Reads the text in a picture: PaddleOCR's models, run by RapidOCR on ONNX Runtime."""

import base64
import http.client
import urllib.request

import cv2
import numpy
from rapidocr_onnxruntime import RapidOCR

PIXELS_MAX = 50_000_000
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


engine = RapidOCR()


def _read(picture, min_score):
    found, _ = engine(picture)
    lines = [
        {"text": text, "score": round(float(score), 4), "box": [[round(float(x)), round(float(y))] for x, y in box]}
        for box, text, score in found or []
        if float(score) >= min_score
    ]
    return {"text": "\n".join(line["text"] for line in lines), "lines": lines}


def predict(item, run_id, logger):
    try:
        return _read(_decoded(_received(item, "image")), float(item.get("min_score", 0.5)))
    except Unusable as reason:
        return {"status_code": 422, "message": str(reason)}
