"""Says whatever it is told, in every way in which an app can say something."""

import sys


def say(text, note=None):
    print(text)
    print(text, file=sys.stderr)
    return {"text": text, text: [text, {text: text}]}


def fail(text):
    kind = type(text.replace("\0", "") or "Empty", (Exception,), {})
    raise kind(text)


def ﬁnd_ªlert(ſcript, prompt="<img src=x onerror=pwn()>"):
    return ſcript
