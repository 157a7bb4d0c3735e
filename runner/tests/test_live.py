"""Values that a caller is told as they come."""

import json
import unittest

from worker_side import CANCEL, CHUNK, ERROR, LIVE, RESULT, ReplicaTest, frame

BOTH = (1, 8)

SOURCE = """
    import asyncio, time

    def words(n):
        for index in range(n):
            yield f"wörd {index}\\n"

    async def numbers(n):
        for index in range(n):
            await asyncio.sleep(0)
            yield {"index": index}

    def handed_on(n):
        return iter([1] * n)

    async def chosen(stream):
        async def tell():
            yield "told"
        return tell() if stream else "whole"

    def empty_texts():
        yield ""
        yield ""

    def breaks(after):
        for index in range(after):
            yield index
        raise ValueError("no more")

    def not_json():
        yield 1
        yield float("nan")

    def endless():
        while True:
            time.sleep(0.001)
            yield "more"
"""


class Live(ReplicaTest):
    def told(self, replica, name, body):
        """The chunks of a live call, and how it ended."""
        replica.send(replica.request(1, name, body, kind=LIVE))
        chunks = []
        while True:
            kind, call, fields = replica.next()
            self.assertEqual(call, 1)
            if kind != CHUNK:
                return chunks, kind, fields["json"]
            chunks.append(fields["text"])

    def test_each_value_is_told_after_an_empty_chunk_and_none_is_gathered(self):
        for concurrency in BOTH:
            with self.subTest(concurrency=concurrency):
                replica = self.replica(SOURCE, concurrency=concurrency).ready()
                self.assertEqual(self.told(replica, "words", {"n": 2}), (["", "wörd 0\n", "wörd 1\n"], RESULT, "null"))
                self.assertEqual(
                    self.told(replica, "numbers", {"n": 2}), (["", '{"index":0}', '{"index":1}'], RESULT, "null")
                )
                self.assertEqual(self.told(replica, "handed_on", {"n": 1}), (["", "1"], RESULT, "null"))
                self.assertEqual(self.told(replica, "empty_texts", {}), (["", "", ""], RESULT, "null"))
                self.assertEqual(self.told(replica, "words", {"n": 0}), ([""], RESULT, "null"))

    def test_what_is_no_generator_answers_as_ever(self):
        for concurrency in BOTH:
            with self.subTest(concurrency=concurrency):
                replica = self.replica(SOURCE, concurrency=concurrency).ready()
                self.assertEqual(self.told(replica, "chosen", {"stream": False}), ([], RESULT, '"whole"'))
                self.assertEqual(self.told(replica, "chosen", {"stream": True}), (["", "told"], RESULT, "null"))

    def test_an_error_before_the_first_value_comes_alone(self):
        replica = self.replica(SOURCE).ready()
        for after, expected in ((0, []), (2, ["", "0", "1"])):
            chunks, kind, error = self.told(replica, "breaks", {"after": after})
            self.assertEqual((chunks, kind, json.loads(error)["message"]), (expected, ERROR, "no more"))
        chunks, kind, error = self.told(replica, "not_json", {})
        self.assertEqual((chunks, kind, json.loads(error)["code"]), (["", "1"], ERROR, "result_invalid"))

    def test_a_cancel_ends_a_generator_without_end(self):
        for concurrency in BOTH:
            with self.subTest(concurrency=concurrency):
                replica = self.replica(SOURCE, concurrency=concurrency).ready()
                replica.send(replica.request(1, "endless", {}, kind=LIVE))
                self.assertEqual(replica.next()[0], CHUNK)
                replica.send(frame(CANCEL, 1))
                kind, fields = CHUNK, None
                while kind == CHUNK:
                    kind, _, fields = replica.next()
                self.assertEqual((kind, json.loads(fields["json"])["code"]), (ERROR, "cancelled"))
                self.assertEqual(self.told(replica, "words", {"n": 1})[0], ["", "wörd 0\n"])


if __name__ == "__main__":
    unittest.main()
