"""Whisper in its real environment with tiny weights: the parts fit, whatever it hears.

Usage: python whisper.py SAMPLE, with the variables that `script/models` sets.
"""

from server import call, delivered, refused, sample


def right(result):
    assert isinstance(result["text"], str) and isinstance(result["segments"], list), result
    assert result["language"] == "en", result


body = {**sample(), "language": "en"}
right(call("whisper", body))
right(call("whisper", {**body, "mode": "translate"}))
right(delivered("whisper", body, "text"))
# Found by listening: whatever weights of chance take it for.
assert call("whisper", sample())["language"]
print("  speech becomes text, translated or not, in the answer and in a webhook")
refused("whisper", {}, "`audio`", "`file_url`")
refused("whisper", {"audio": "bm8gc291bmQ="}, "no sound file")
refused("whisper", {**body, "language": "klingon"}, "`language`", "send one of")
