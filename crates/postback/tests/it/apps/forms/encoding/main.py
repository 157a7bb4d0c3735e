"""Values that JSON has no word for."""

import collections
import dataclasses
import datetime
import decimal
import enum
import pathlib
import uuid


@dataclasses.dataclass
class Box:
    left: int
    label: str = "cat"


class Colour(enum.Enum):
    RED = "red"


Point = collections.namedtuple("Point", "x y")


def run():
    return {
        "dataclass": Box(1),
        "moment": datetime.datetime(2024, 5, 6, 7, 8, 9, tzinfo=datetime.timezone.utc),
        "day": datetime.date(2024, 5, 6),
        "wait": datetime.timedelta(minutes=1.5),
        "bytes": b"\x00\xff",
        "set": {1},
        "tuple": (1, 2),
        "named": Point(3, 4),
        "deque": collections.deque([5]),
        "decimal": decimal.Decimal("1.10"),
        "enum": Colour.RED,
        "path": pathlib.PurePosixPath("/a/b"),
        "uuid": uuid.UUID(int=1),
        "keys": {2: "two", None: "none", True: "yes"},
    }


def big():
    return 10**40
