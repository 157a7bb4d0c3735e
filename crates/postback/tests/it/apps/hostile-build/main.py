"""A build that fails, and says why in the words of a stranger."""

import json
import pathlib

for payload in json.loads(pathlib.Path(__file__).with_name("payloads.json").read_text()):
    print(payload)
raise RuntimeError("</pre><script>pwn()</script>\u202e<img src=x onerror=pwn()> build-mark")
