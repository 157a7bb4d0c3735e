"""A function's return value as JSON.

Beyond what `json` knows: pydantic models, dataclasses, numpy and its kin, dates, decimals, sets, bytes and more,
recognised by shape, since none of these libraries is ours to import. Integers keep all their digits. What JSON cannot
write is refused with the place where it stands, never written as something else.
"""

import base64
import collections
import collections.abc
import datetime
import enum
import json
import math
import os
import sys

from . import failure

RESULT_BYTES_MAX = 100 << 20

_BUILT_IN = frozenset((dict, list, str, int, float, bool, type(None), tuple))


class Refused(Exception):
    """The value is no result; `code` says why in the protocol's words."""

    def __init__(self, code, message):
        super().__init__(message)
        self.code = code


def encode(value):
    """`(HTTP status, JSON bytes)` of what a function returned.

    Writing a value runs code of its own, which may raise anything, `SystemExit` too: all of it is `Refused`, since it
    is this call's trouble and not the replica's.
    """
    try:
        if type(value) not in _BUILT_IN:
            value = _plain(value)
        encoded = _dumps(value)
        status = _status(value)
    except RecursionError:
        raise Refused("result_invalid", "the result is nested too deeply, or holds itself") from None
    except BaseException as reason:
        raise Refused("result_invalid", _explain(value, reason)) from reason
    if len(encoded) > RESULT_BYTES_MAX:
        raise too_large(len(encoded))
    return status, encoded


def too_large(size):
    return Refused(
        "result_too_large",
        "the result is {} bytes of JSON; {} are allowed: store it elsewhere and return its address".format(
            size, RESULT_BYTES_MAX
        ),
    )


def _status(value):
    if isinstance(value, dict):
        status = value.get("status_code")
        if isinstance(status, int) and not isinstance(status, bool) and 200 <= status <= 599:
            return int(status)
    return 200


def _plain(value):
    """One layer of `value` as something that `json` knows, or knows better."""
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, (str, int, float, dict, list, tuple)):
        return value
    if isinstance(value, (datetime.datetime, datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, datetime.timedelta):
        return value.total_seconds()
    if isinstance(value, (_class("decimal", "Decimal"), _class("uuid", "UUID"))):
        return str(value)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return base64.b64encode(value).decode("ascii")
    if isinstance(value, os.PathLike):
        path = os.fspath(value)
        return os.fsdecode(path)
    if isinstance(value, type):
        raise TypeError("it is the class {}, not an object of it".format(value.__name__))
    if hasattr(type(value), "__dataclass_fields__"):
        fields = sys.modules["dataclasses"].fields(value)
        return {field.name: getattr(value, field.name) for field in fields}
    return _shaped(value)


def _class(module, name):
    """A class of a module, for `isinstance`: no value is of it unless the app has imported that."""
    return getattr(sys.modules.get(module), name, ())


def _shaped(value):
    kind = type(value)
    if callable(getattr(kind, "model_dump", None)):
        return value.model_dump(mode="json")
    if hasattr(kind, "__fields__") and callable(getattr(kind, "dict", None)):
        return value.dict()
    if hasattr(kind, "__attrs_attrs__"):
        return {attribute.name: getattr(value, attribute.name) for attribute in kind.__attrs_attrs__}
    if hasattr(kind, "__struct_fields__"):
        return {name: getattr(value, name) for name in kind.__struct_fields__}
    if callable(getattr(kind, "tolist", None)):
        return value.tolist()
    if callable(getattr(kind, "to_dict", None)) and hasattr(value, "columns"):
        return value.to_dict(orient="records")
    if isinstance(value, collections.abc.Mapping):
        return dict(value)
    if isinstance(value, (collections.abc.Set, collections.abc.Sequence, collections.deque, collections.abc.ValuesView)):
        return list(value)
    raise TypeError("JSON has no form for {}".format(kind.__name__))


_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_plain)


def _encoded(value):
    """What `_ENCODER.encode` makes, without what that sets up before it gets to the value."""
    # The first is for the containers it is inside of: each writing needs its own.
    write = json.encoder.c_make_encoder(
        {}, _plain, json.encoder.encode_basestring, None, ":", ",", False, False, False
    )
    return "".join(write(value, 0))


try:
    if _encoded({"a": [1, "\xe9", None, 1.5]}) != '{"a":[1,"\xe9",null,1.5]}':
        _encoded = _ENCODER.encode
except Exception:
    # A Python without it, or with another one.
    _encoded = _ENCODER.encode


def _dumps(value):
    try:
        text = _encoded(value)
    except TypeError as reason:
        if "keys must be" not in str(reason):
            raise
        text = _encoded(_with_text_keys(value))
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError:
        # Halves of surrogate pairs: joined where both are there, else replaced, as strict parsers refuse them.
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode("utf-8")


def _with_text_keys(value):
    if type(value) not in _BUILT_IN:
        value = _plain(value)
    if isinstance(value, dict):
        return {_text_key(key): _with_text_keys(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_with_text_keys(item) for item in value]
    return value


def _text_key(key):
    if key is None or type(key) in (str, int, float, bool):
        return key
    key = _plain(key)
    if key is None or isinstance(key, (str, int, float)):
        return key
    raise TypeError("a JSON object cannot have a {} as key".format(type(key).__name__))


def _explain(value, reason):
    try:
        found = _find(value, "result", 0)
    except BaseException:
        # What is looked at runs its own code again; then what was raised first must do.
        found = None
    return "the result cannot be written as JSON: {}".format(_said(reason) if found is None else found)


def _said(reason):
    text = failure.message(reason)
    return text if isinstance(reason, Exception) else "{}: {}".format(type(reason).__name__, text)


def _find(value, path, depth):
    """The first thing in `value` that cannot be encoded, as words."""
    if depth > 100:
        return "{} is nested too deeply, or holds itself".format(path)
    try:
        if type(value) not in _BUILT_IN:
            value = _plain(value)
    except BaseException as reason:
        return "{}, of type {}: {}".format(path, type(value).__name__, _said(reason))
    if isinstance(value, float) and not math.isfinite(value):
        return "{} is {}; JSON has neither NaN nor infinities".format(path, value)
    if isinstance(value, dict):
        for key, item in value.items():
            try:
                _text_key(key)
            except BaseException as reason:
                return "{} has a key of the wrong kind: {}".format(path, _said(reason))
            found = _find(item, "{}[{!r}]".format(path, key), depth + 1)
            if found is not None:
                return found
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            found = _find(item, "{}[{}]".format(path, index), depth + 1)
            if found is not None:
                return found
    return None
