"""The painter in its real environment with tiny weights: it paints noise, in the sizes and numbers that are asked for.

Usage: python dreambooth.py SAMPLE, with the variables that `script/models` sets.
"""

import base64
import struct
import zlib

from server import call, delivered, refused, sample

QUICK = {"prompt": "a red bicycle", "num_inference_steps": 2}


def pixels(text):
    """Width, height and bytes of the picture in a PNG file as base64, with the sums of its chunks proven."""
    data = base64.b64decode(text, validate=True)
    assert data.startswith(b"\x89PNG\r\n\x1a\n"), data[:16]
    at, chunks = 8, []
    while at < len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        content = data[at + 8 : at + 8 + length]
        assert struct.unpack_from(">I", data, at + 8 + length)[0] == zlib.crc32(kind + content), kind
        chunks.append((kind, content))
        at += length + 12
    assert chunks[0][0] == b"IHDR" and chunks[-1][0] == b"IEND", [kind for kind, _ in chunks]
    width, height, depth, colours = struct.unpack_from(">IIBB", chunks[0][1])
    assert (depth, colours) == (8, 2), "eight bits each of red, green and blue"
    lines = zlib.decompress(b"".join(content for kind, content in chunks if kind == b"IDAT"))
    assert len(lines) == height * (1 + 3 * width), (len(lines), width, height)
    return width, height, lines


def painted(result, count, width, height):
    assert isinstance(result, list) and len(result) == count, result
    for text in result:
        assert pixels(text)[:2] == (width, height), pixels(text)[:2]
        assert len(set(pixels(text)[2])) > 50, "a picture of one colour"
    return result


def paint(count, width, height, **wanted):
    size = {"width": width, "height": height}
    return painted(call("dreambooth", {**QUICK, **size, **wanted}), count, width, height)


painted(call("dreambooth", {**sample(), "num_inference_steps": 2}), 1, 512, 512)
print("  without a size it is 512 by 512")
two = paint(2, 128, 64, num_images_per_prompt=2)
assert two[0] != two[1], "two pictures of one prompt are the same"
assert paint(2, 128, 64, num_images_per_prompt=2) == two, "the same seed paints another picture"
other = paint(1, 128, 64, seed=2)
assert other[0] != two[0], "another seed paints the same picture"
assert paint(1, 128, 64, seed=2, negative_prompt="blue", guidance_scale=2) != other, "the rest is not heard"
print("  sizes, numbers, seeds, negative prompts and guidance are what was asked for")
painted(delivered("dreambooth", {**QUICK, "width": 128, "height": 64}, "images"), 1, 128, 64)
print("  a webhook has the same list of PNG files")
for wrong, *said in (
    ({}, "`prompt`"),
    ({"prompt": "x", "height": 500}, "`height` must be a multiple of 8, such as 496"),
    ({"prompt": "x", "width": 4096}, "`width` must be a number from 64 to 2048"),
    ({"prompt": "x", "num_inference_steps": "many"}, "`num_inference_steps`", "from 1 to 500"),
    ({"prompt": "x", "seed": -1}, "`seed`"),
    ({"prompt": "x", "hf_model_path": "../../etc"}, "`owner/model`"),
    ({"prompt": "x", "hf_model_path": "postback-tests/nothing-of-this-name"}, "cannot be loaded"),
):
    refused("dreambooth", wrong, *said)
