"""Turns spoken English into text: CMU Sphinx, with the acoustic and language models of its package."""

import array
import base64
import http.client
import io
import sys
import urllib.request
import wave

from pocketsphinx import Decoder, Vad

RATE = 16_000
SECONDS_MAX = 300
# Less speech than this is a noise, of which a decoder would make words all the same.
SPEECH_SECONDS_MIN = 0.2
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


decoder = Decoder(samprate=RATE, loglevel="FATAL")


def _spoken_seconds(pcm):
    vad = Vad(mode=Vad.STRICT, sample_rate=RATE)
    frames = [pcm[at : at + vad.frame_bytes] for at in range(0, len(pcm), vad.frame_bytes)]
    speech = sum(vad.is_speech(frame) for frame in frames if len(frame) == vad.frame_bytes)
    return speech * vad.frame_length


def _transcribe(taken):
    seconds = round(len(taken) / RATE, 2)
    pcm = taken.tobytes()
    if _spoken_seconds(pcm) < SPEECH_SECONDS_MIN:
        return {"text": "", "words": [], "seconds": seconds}
    decoder.start_utt()
    decoder.process_raw(pcm, full_utt=True)
    decoder.end_utt()
    said = decoder.hyp()
    words = [
        {"word": part.word.partition("(")[0], "start": part.start_frame / 100, "end": (part.end_frame + 1) / 100}
        for part in (decoder.seg() or [] if said else [])
        if part.word[0] not in "<["
    ]
    return {"text": said.hypstr if said else "", "words": words, "seconds": seconds}


def predict(item, run_id, logger):
    try:
        return _transcribe(_samples(_received(item, "audio"), RATE))
    except Unusable as reason:
        return {"status_code": 422, "message": str(reason)}
