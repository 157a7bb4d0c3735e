"""`from cerebrium import get_secret`, for apps written for Cerebrium's own runtime.

Offered under that name only where no package of the name is installed.
"""

import importlib.abc
import importlib.util
import json
import logging
import os
import sys

_logger = logging.getLogger("cerebrium")


def get_secret(key):
    """The secret of that name, from `secrets.json` or `secrets.yaml` beside the app, else from the environment."""
    for read in (_from_json, _from_yaml):
        value = read().get(key)
        if value is not None:
            return value
    value = os.environ.get(key)
    if value is None:
        _logger.error(
            "there is no secret %r: add it to the project's secrets; a change reaches replicas that start afterwards", key
        )
    return value


def _from_json():
    try:
        with open("secrets.json", encoding="utf-8") as file:
            secrets = json.load(file)
    except OSError:
        return {}
    except ValueError as reason:
        _logger.error("secrets.json cannot be read: %s", reason)
        return {}
    return secrets if isinstance(secrets, dict) else {}


def _from_yaml():
    """Flat `KEY: value` lines, which is all that such a file holds."""
    try:
        with open("secrets.yaml", encoding="utf-8") as file:
            lines = file.read().splitlines()
    except OSError:
        return {}
    secrets = {}
    for line in lines:
        key, colon, value = line.partition(":")
        if colon and not line.lstrip().startswith(("#", "%", "---")):
            secrets[key.strip().strip("\"'")] = _scalar(value.strip())
    return secrets


def _scalar(text):
    if text[:1] in ("'", '"'):
        return text[1:].partition(text[0])[0]
    return text.partition(" #")[0].strip()


class _Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name == "cerebrium":
            return importlib.util.spec_from_file_location(name, os.path.abspath(__file__))
        return None


def offer():
    """Makes the name importable, after everything that is installed."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.append(_Finder())
