"""Turns speech in about a hundred languages into text: OpenAI's Whisper, by faster-whisper."""

import base64
import ctypes
import glob
import http.client
import io
import os
import sysconfig
import urllib.request

SECONDS_MAX = 2 * 3600
BYTES_MAX = 200 << 20
RATE = 16_000


def _load_cuda_libraries():
    """cuBLAS and cuDNN from their PyPI packages, where there are any: CTranslate2 looks among what is loaded."""
    folder = os.path.join(sysconfig.get_paths()["purelib"], "nvidia")
    for pattern in ("cublas/lib/libcublasLt.so.*", "cublas/lib/libcublas.so.*", "cudnn/lib/libcudnn*.so.*"):
        for path in sorted(glob.glob(os.path.join(folder, pattern))):
            ctypes.CDLL(path, mode=ctypes.RTLD_GLOBAL)


_load_cuda_libraries()

import av
import ctranslate2
from faster_whisper import WhisperModel, decode_audio

ON_GPU = ctranslate2.get_cuda_device_count() > 0
# A name of https://huggingface.co/Systran, or a folder with a converted model.
MODEL = os.environ.get("WHISPER_MODEL") or ("large-v3" if ON_GPU else "small")
model = WhisperModel(MODEL, device="cuda" if ON_GPU else "cpu", compute_type="float16" if ON_GPU else "int8")


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
            with urllib.request.urlopen(url, timeout=60) as answer:
                data = answer.read(BYTES_MAX + 1)
        except (OSError, ValueError, http.client.HTTPException) as reason:
            raise Unusable(f"`file_url` cannot be fetched: {reason}") from None
    else:
        raise Unusable(f"send the {key} as base64 under `{key}`, or its address under `file_url`")
    if len(data) > BYTES_MAX:
        raise Unusable(f"the {key} is larger than {BYTES_MAX} bytes")
    return data


def _samples(data):
    try:
        taken = decode_audio(io.BytesIO(data), sampling_rate=RATE)
    except (av.error.FFmpegError, IndexError):
        # Without a stream of sound there is no first one.
        raise Unusable("`audio` is no sound file that ffmpeg can read") from None
    if len(taken) > SECONDS_MAX * RATE:
        raise Unusable(f"`audio` is longer than {SECONDS_MAX} s; cut it")
    return taken


def _chosen(item):
    """The task and the language that a request asks for."""
    mode = item.get("mode") or "transcribe"
    if mode not in ("transcribe", "translate"):
        raise Unusable(f"`mode` is `{mode}`; send `transcribe`, or `translate` for English text")
    language = item.get("language") or None
    if language is not None and language not in model.supported_languages:
        raise Unusable(f"`language` is `{language}`; send one of {', '.join(sorted(model.supported_languages))}")
    return mode, language


def predict(item, run_id, logger):
    try:
        mode, language = _chosen(item)
        taken = _samples(_received(item, "audio"))
    except Unusable as reason:
        return {"status_code": 422, "message": str(reason)}
    # Silence is left out first, since Whisper makes words of it.
    found, about = model.transcribe(taken, task=mode, language=language, vad_filter=True)
    segments = []
    for part in found:
        logger.info(f"{part.end:.0f} of {about.duration:.0f} s")
        segments.append({"start": round(part.start, 2), "end": round(part.end, 2), "text": part.text.strip()})
    text = " ".join(segment["text"] for segment in segments)
    return {"text": text, "segments": segments, "language": about.language}
