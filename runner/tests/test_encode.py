"""What results may be, and how they look as JSON."""

import collections
import dataclasses
import datetime
import decimal
import enum
import json
import pathlib
import types
import unittest
import uuid

import worker_side  # noqa: F401  puts the runner on the path
from runner import encode


def text(value):
    return encode.encode(value)[1].decode("utf-8")


class PydanticTwo:
    def __init__(self, **fields):
        self.fields = fields

    def model_dump(self, mode):
        assert mode == "json"
        return self.fields


class PydanticOne:
    __fields__ = {}

    def __init__(self, **fields):
        self.fields = fields

    def dict(self):
        return self.fields


class Array:
    dtype = "float32"

    def __init__(self, values):
        self.values = values

    def tolist(self):
        return self.values


class Frame:
    columns = ["a"]

    def to_dict(self, orient):
        return [{"a": 1}] if orient == "records" else None


@dataclasses.dataclass
class Point:
    x: int
    at: datetime.date


class Colour(enum.Enum):
    RED = "red"


class Values(unittest.TestCase):
    def test_json_is_compact_and_not_escaped(self):
        self.assertEqual(text({"a": [1, None, True], "é": "🦀"}), '{"a":[1,null,true],"é":"🦀"}')

    def test_integers_keep_all_digits_and_floats_their_shortest_form(self):
        self.assertEqual(text([123456789012345678901234567890, 0.1, 1e300]), "[123456789012345678901234567890,0.1,1e+300]")

    def test_what_models_return_is_written(self):
        when = datetime.datetime(2023, 11, 14, 22, 13, 20, tzinfo=datetime.timezone.utc)
        for value, expected in (
            (PydanticTwo(a=1), {"a": 1}),
            (PydanticOne(a=Array([1.5])), {"a": [1.5]}),
            (Point(1, datetime.date(2023, 11, 14)), {"x": 1, "at": "2023-11-14"}),
            ({"a": Array([[1, 2], [3, 4]])}, {"a": [[1, 2], [3, 4]]}),
            (Array(2.5), 2.5),
            (Frame(), [{"a": 1}]),
            ([when, datetime.time(1, 2), datetime.timedelta(seconds=1.5)], ["2023-11-14T22:13:20+00:00", "01:02:00", 1.5]),
            (decimal.Decimal("1.10"), "1.10"),
            (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
            (pathlib.PurePosixPath("/a/b"), "/a/b"),
            (Colour.RED, "red"),
            ([b"\x00\xff", bytearray(b"a"), memoryview(b"a")], ["AP8=", "YQ==", "YQ=="]),
            ({3}, [3]),
            (collections.deque([1]), [1]),
            (range(3), [0, 1, 2]),
            (types.MappingProxyType({"a": 1}), {"a": 1}),
            ({"a": 1}.keys(), ["a"]),
            (collections.OrderedDict(a=1), {"a": 1}),
            (collections.namedtuple("Pair", "a b")(1, 2), [1, 2]),
        ):
            with self.subTest(value=value):
                self.assertEqual(json.loads(text(value)), expected)

    def test_keys_become_text(self):
        self.assertEqual(text({1: "a", None: "b"}), '{"1":"a","null":"b"}')
        key = uuid.UUID(int=1)
        self.assertEqual(json.loads(text({"x": [{key: 1, Colour.RED: {datetime.date(2023, 1, 2): 2}}]})),
                         {"x": [{str(key): 1, "red": {"2023-01-02": 2}}]})

    def test_surrogate_pairs_are_joined_and_lone_halves_replaced(self):
        self.assertEqual(text("\ud83e\udd80 \ud800"), '"🦀 \ufffd"')


class Statuses(unittest.TestCase):
    def test_the_results_own_status_code_counts_when_it_is_one(self):
        for value, status in (
            ({"status_code": 422}, 422),
            (PydanticTwo(status_code=404), 404),
            ({"status_code": 600}, 200),
            ({"status_code": 100}, 200),
            ({"status_code": True}, 200),
            ({"status_code": "404"}, 200),
            ([{"status_code": 404}], 200),
            (None, 200),
        ):
            with self.subTest(value=value):
                self.assertEqual(encode.encode(value)[0], status)


class Refusals(unittest.TestCase):
    def refused(self, value, code="result_invalid"):
        with self.assertRaises(encode.Refused) as caught:
            encode.encode(value)
        self.assertEqual(caught.exception.code, code)
        return str(caught.exception)

    def test_nan_and_infinities_are_refused_with_their_place(self):
        self.assertIn("result['a'][1] is nan", self.refused({"a": [1.0, float("nan")]}))
        self.assertIn("inf", self.refused(float("inf")))
        self.assertIn("result[0]", self.refused([Array([float("-inf")])]))

    def test_what_json_cannot_write_is_refused_with_its_place(self):
        self.assertIn("result['image'], of type object", self.refused({"image": object()}))
        self.assertIn("complex", self.refused([1j]))
        self.assertIn("key", self.refused({(1, 2): 3}))
        self.assertIn("class", self.refused(Point))

    def test_what_holds_itself_is_refused(self):
        loop = []
        loop.append(loop)
        self.refused(loop)
        deep = []
        for _ in range(100_000):
            deep = [deep]
        self.refused(deep)

    def test_a_model_that_raises_while_it_is_written_is_refused(self):
        class Bad:
            def model_dump(self, mode):
                raise RuntimeError("no")

        self.assertIn("no", self.refused(Bad()))

    def test_whatever_the_values_own_code_raises_is_a_refusal(self):
        class Get(dict):
            def get(self, *_):
                raise KeyError("no")

        class Key:
            def __repr__(self):
                raise RuntimeError("no")

        class Exits:
            def model_dump(self, mode):
                raise SystemExit(3)

        class Interrupts:
            def tolist(self):
                raise KeyboardInterrupt

        class Mute(Exception):
            def __str__(self):
                raise SystemExit(4)

        class Raises:
            def to_dict(self, **_):
                raise Mute

            columns = ()

        class Liar:
            @property
            def __class__(self):
                raise RuntimeError("no")

        for value in (Get(a=1), {Key(): 1}, Exits(), [Exits()], Interrupts(), Raises(), [Raises()], Liar(), {"a": Liar()}):
            self.assertIn("cannot be written as JSON", self.refused(value), type(value))
        self.assertIn("SystemExit", self.refused([Exits()]))

    def test_a_result_over_the_bound_is_refused(self):
        self.assertIn("104857602 bytes", self.refused("x" * (100 << 20), "result_too_large"))


if __name__ == "__main__":
    unittest.main()
