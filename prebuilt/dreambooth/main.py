"""Paints what is described: Stable Diffusion, or one that was tuned on pictures of something by DreamBooth."""

import base64
import io
import os
import re

import torch
from diffusers import DiffusionPipeline

BASE_MODEL = os.environ.get("DREAMBOOTH_MODEL") or "stabilityai/stable-diffusion-2-1"
# Other weights than safetensors are programs: whoever names them in a request would run what they like.
SAFE_ONLY = not os.environ.get("DREAMBOOTH_ALLOW_PICKLES")
HUB_NAME = re.compile(r"\w[\w.-]{0,95}/\w[\w.-]{0,95}")
TEXT_MAX = 4000
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"

# The one that was used last, with its name and the token it was fetched with.
loaded = (None, None, None)


class Unusable(Exception):
    """What the request brings cannot be worked on; the caller gets 422 and these words."""


def _number(item, key, default, least, most, kind):
    value = item.get(key)
    if value is None:
        return default
    try:
        found = kind(value)
    except (TypeError, ValueError, OverflowError):
        raise Unusable(f"`{key}` must be a number from {least} to {most}") from None
    if not least <= found <= most:
        raise Unusable(f"`{key}` must be a number from {least} to {most}")
    return found


def _side(item, key):
    pixels = _number(item, key, 512, 64, 2048, int)
    if pixels % 8:
        raise Unusable(f"`{key}` must be a multiple of 8, such as {pixels // 8 * 8}")
    return pixels


def _wanted(item):
    """The arguments of the pipeline, from those of the request."""
    prompt = item.get("prompt")
    if not isinstance(prompt, str) or not prompt.strip():
        raise Unusable("send what is to be painted as `prompt`")
    negative = item.get("negative_prompt") or ""
    if not isinstance(negative, str) or len(prompt) > TEXT_MAX or len(negative) > TEXT_MAX:
        raise Unusable(f"`prompt` and `negative_prompt` must be texts of {TEXT_MAX} characters at most")
    return {
        "prompt": prompt,
        "negative_prompt": negative,
        "height": _side(item, "height"),
        "width": _side(item, "width"),
        "guidance_scale": _number(item, "guidance_scale", 7.5, 0, 50, float),
        "num_inference_steps": _number(item, "num_inference_steps", 50, 1, 500, int),
        "num_images_per_prompt": _number(item, "num_images_per_prompt", 1, 1, 8, int),
    }


def _named(item):
    """Which model, and the token that opens it."""
    path = item.get("hf_model_path") or item.get("model_id") or BASE_MODEL
    # Folders of this machine are for whoever deploys the app, not for callers.
    if path != BASE_MODEL and not (isinstance(path, str) and HUB_NAME.fullmatch(path)):
        raise Unusable("`hf_model_path` must name a model on huggingface.co: `owner/model`")
    token = item.get("hf_token") or os.environ.get("hf_auth_token")
    if token is not None and not isinstance(token, str):
        raise Unusable("`hf_token` must be a text")
    return path, token


def _said(reason, token):
    """What an error says, and the one at its root: that of the library may only point to it. Nothing of the token."""
    root = reason
    while root.__cause__ or root.__context__:
        root = root.__cause__ or root.__context__
    # Before anything is cut: half a token is no longer found.
    whole, deepest = (str(error).replace(token, "…") if token else str(error) for error in (reason, root))
    said = whole.partition("Please check out the root cause")[0].strip()
    return said if deepest in whole else f"{said} ({deepest[:300]})"


def _pipeline(path, token):
    global loaded
    if loaded[:2] != (path, token):
        # The old one goes first: there may be room for one only.
        loaded = (None, None, None)
        if DEVICE == "cuda":
            torch.cuda.empty_cache()
        try:
            made = DiffusionPipeline.from_pretrained(
                path,
                token=token,
                torch_dtype=torch.float16 if DEVICE == "cuda" else torch.float32,
                use_safetensors=SAFE_ONLY or None,
            )
        except (OSError, ValueError) as reason:
            # No such model, one that the token does not open, or none that is made of safetensors.
            raise Unusable(f"`{path}` cannot be loaded: {_said(reason, token)}") from None
        made.set_progress_bar_config(disable=True)
        loaded = (path, token, made.to(DEVICE))
    return loaded[2]


def _encoded(image):
    file = io.BytesIO()
    image.save(file, format="PNG")
    return base64.b64encode(file.getvalue()).decode("ascii")


def predict(item, run_id, logger):
    try:
        arguments = _wanted(item)
        seed = _number(item, "seed", 1, 0, 2**63 - 1, int)
        paint = _pipeline(*_named(item))
    except Unusable as reason:
        return {"status_code": 422, "message": str(reason)}
    generator = torch.Generator(DEVICE).manual_seed(seed)
    return [_encoded(image) for image in paint(generator=generator, **arguments).images]
