"""Which functions can be called, and how bodies meet parameters."""

import functools
import json
import sys
import types
import unittest

import worker_side  # noqa: F401  puts the runner on the path
from runner import contract


def functions(source):
    module = types.ModuleType("main")
    sys.modules["main"] = module
    exec(source, vars(module))
    return {function.name: function for function in contract.functions_of(module)}


def invoke(source, body, name="run"):
    return functions(source)[name].invoke(json.dumps(body).encode(), "the-run", "the-logger")


class Exposed(unittest.TestCase):
    def test_the_modules_own_functions_without_underscore_are_exposed_in_order(self):
        found = functions(
            "from json import dumps\nimport os\n"
            "def predict(item, run_id, logger): pass\n"
            "def _hidden(): pass\n"
            "class Item: pass\n"
            "model = Item()\n"
            "async def chat(prompt): pass\n"
            "PI = 3\n"
            "def words():\n yield 1\n"
        )
        self.assertEqual(list(found), ["predict", "chat", "words"])

    def test_decorated_functions_stay_exposed(self):
        found = functions(
            "import functools\n"
            "def _twice(f):\n"
            " @functools.wraps(f)\n"
            " def inner(*a, **k): return [f(*a, **k)] * 2\n"
            " return inner\n"
            "@_twice\ndef run(n): return n\n"
            "@functools.lru_cache()\ndef cached(n): return n\n"
        )
        self.assertEqual(list(found), ["run", "cached"])
        self.assertEqual(found["run"].invoke(b'{"n":1}', "r", None), [1, 1])
        self.assertEqual(found["run"].described()["parameters"], [{"name": "n", "required": True}])

    def test_ready_describes_contract_parameters_and_streams(self):
        found = functions(
            "def predict(item, run_id, logger): pass\n"
            "def chat(prompt, run_id, temperature=1.0, **rest):\n yield 1\n"
        )
        self.assertEqual(
            [found["predict"].described(), found["chat"].described()],
            [
                {
                    "name": "predict",
                    "contract": "item",
                    "parameters": [{"name": name, "required": True} for name in ("item", "run_id", "logger")],
                    "takes_any": False,
                    "streams": False,
                },
                {
                    "name": "chat",
                    "contract": "keywords",
                    "parameters": [
                        {"name": "prompt", "required": True},
                        {"name": "run_id", "required": False},
                        {"name": "temperature", "required": False},
                    ],
                    "takes_any": True,
                    "streams": True,
                },
            ],
        )

    def test_item_contract_needs_the_three_names_in_order(self):
        self.assertEqual(functions("def run(item, logger, run_id): pass")["run"].contract, "keywords")
        self.assertEqual(functions("def run(item, run_id): pass")["run"].contract, "keywords")


class Calls(unittest.TestCase):
    ITEM = "def run(item, run_id, logger): return item, run_id, logger"

    def test_item_gets_the_whole_body_with_its_webhook_endpoint(self):
        body = {"a": 1, "webhook_endpoint": "https://x", "run_id": "mine"}
        self.assertEqual(invoke(self.ITEM, body), (body, "the-run", "the-logger"))

    def test_an_empty_body_is_an_empty_object(self):
        self.assertEqual(functions(self.ITEM)["run"].invoke(b"", "r", "l"), ({}, "r", "l"))

    def test_keywords_are_passed_and_run_id_is_injected_unless_the_body_has_one(self):
        source = "def run(prompt, run_id, n=2): return [prompt, run_id, n]"
        self.assertEqual(invoke(source, {"prompt": "x"}), ["x", "the-run", 2])
        self.assertEqual(invoke(source, {"prompt": "x", "run_id": "mine", "n": 3}), ["x", "mine", 3])

    def test_what_a_body_says_to_the_server_reaches_only_functions_that_declare_it(self):
        body = {"n": 1, "webhook_events_filter": ["start"], "webhook_metadata": {"a": 1}}
        self.assertEqual(invoke("def run(n): return n", body), 1)
        self.assertEqual(invoke("def run(n, **rest): return rest", body), {})
        self.assertEqual(invoke("def run(n, webhook_metadata): return webhook_metadata", body), {"a": 1})

    def test_webhook_endpoint_reaches_only_functions_that_declare_it(self):
        body = {"n": 1, "webhook_endpoint": "https://x"}
        self.assertEqual(invoke("def run(n): return n", body), 1)
        self.assertEqual(invoke("def run(**all): return all", body), {"n": 1})
        self.assertEqual(invoke("def run(n, webhook_endpoint=None): return webhook_endpoint", body), "https://x")

    def test_a_run_id_of_the_callers_reaches_only_functions_that_take_one(self):
        body = {"n": 1, "run_id": "mine"}
        self.assertEqual(invoke("def run(n): return n", body), 1)
        self.assertEqual(invoke("def run(n, /): return n", body), 1)
        self.assertEqual(invoke("def run(**all): return all", body), body)

    def test_unknown_parameters_are_named_with_the_known_ones(self):
        with self.assertRaisesRegex(TypeError, r"run\(\) got unexpected parameters: 'x', 'y'; it takes n, m"):
            invoke("def run(n, m=1): pass", {"n": 1, "x": 2, "y": 3})
        with self.assertRaisesRegex(TypeError, "it takes no parameters"):
            invoke("def run(): pass", {"n": 1})

    def test_missing_parameters_are_named(self):
        with self.assertRaisesRegex(TypeError, "'n'"):
            invoke("def run(n): pass", {})

    def test_positional_only_parameters_are_reached_by_name(self):
        self.assertEqual(invoke("def run(a, b=2, /, *, c): return [a, b, c]", {"a": 1, "c": 3}), [1, 2, 3])

    def test_a_body_that_is_no_object_is_refused(self):
        with self.assertRaisesRegex(TypeError, "JSON object"):
            invoke("def run(): pass", [1])

    def test_an_annotation_converts_nothing(self):
        self.assertEqual(invoke("class Item: pass\ndef run(item: Item): return item", {"item": {"a": 1}}), {"a": 1})

    def test_integers_beyond_64_bits_arrive_whole(self):
        n = 123456789012345678901234567890
        self.assertEqual(invoke("def run(n): return n", {"n": n}), n)

    def test_partial_objects_and_instances_are_not_exposed(self):
        self.assertEqual(functools.partial(int, 2)(), 2)
        found = functions("import functools\ndef run(n): return n\nbase = functools.partial(run, 1)")
        self.assertEqual(list(found), ["run"])


if __name__ == "__main__":
    unittest.main()
