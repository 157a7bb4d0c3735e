"""What the platform tells an app, and a place that outlives its replicas."""

import os
import pathlib


def run():
    storage = pathlib.Path(os.environ["POSTBACK_PERSISTENT_STORAGE"])
    with open(storage / "weights.txt", "w") as file:
        file.write("kept")
    return {
        "app": os.environ["APP_NAME"],
        "project": os.environ["PROJECT_ID"][:2],
        "build": os.environ["BUILD_ID"][:2],
        "kept": (storage / "weights.txt").read_text(),
        "cache": "HF_HOME" in os.environ,
        "folder": "main.py" in os.listdir(),
    }
