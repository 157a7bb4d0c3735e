"""The apps under `examples/` do what their pages say."""

import importlib.util
import unittest

from worker_side import ERROR, RESULT, RUN_ID, RUNNER, ReplicaTest

EXAMPLES = RUNNER.parent / "examples"


class Delay(ReplicaTest):
    @unittest.skipUnless(importlib.util.find_spec("pydantic"), "the delay example needs pydantic")
    def test_no_delay_answers_at_once(self):
        source = (EXAMPLES / "delay" / "main.py").read_text(encoding="utf-8")
        answer = self.replica(source).ready().call("predict", {"delayMins": 0, "webhook_endpoint": "https://x"})
        self.assertEqual((answer.kind, answer.json), (RESULT, '{"result":"Delayed for 0 mins"}'))

    def test_each_round_is_logged(self):
        stand_in = "class BaseModel:\n    def __init__(self, **fields): self.__dict__.update(fields)\n"
        source = (EXAMPLES / "delay" / "main.py").read_text(encoding="utf-8")
        source = source.replace("SECONDS_PER_ROUND = 10", "SECONDS_PER_ROUND = 0")
        answer = self.replica(source, files={"pydantic.py": stand_in}).ready().call("predict", {"delayMins": 2})
        self.assertEqual(answer.json, '{"result":"Delayed for 2 mins"}')
        self.assertEqual(answer.text, ["0 seconds elapsed"] * 20)


class Hello(ReplicaTest):
    def test_every_endpoint_shows_what_the_page_says(self):
        source = (EXAMPLES / "hello" / "main.py").read_text(encoding="utf-8")
        replica = self.replica(source, concurrency=10).ready()
        self.assertEqual([f["name"] for f in replica.functions], ["greet", "wait", "count", "divide"])
        answer = replica.call("greet", {"name": "Ada", "language": "fr"})
        self.assertEqual(answer.value, {"greeting": "Bonjour, Ada!", "run_id": RUN_ID})
        self.assertEqual(answer.text, ["greeting Ada in fr"])
        self.assertEqual(replica.call("greet", {"name": "Ada", "language": "xx"}).status, 422)
        self.assertGreaterEqual(replica.call("wait", {"seconds": 0.01}).value["waited"], 0.01)
        self.assertEqual(replica.call("count").value, ["number 1", "number 2", "number 3"])
        failed = replica.call("divide", {"a": 1, "b": 0})
        self.assertEqual((failed.kind, failed.value["type"]), (ERROR, "ZeroDivisionError"))


if __name__ == "__main__":
    unittest.main()
