"""Parameters that are pydantic models. The library is not needed: its two generations are known by their shape."""

import json
import unittest

from test_contract import functions

MODELS = '''
class Unfit(ValueError):
    def errors(self):
        return [{"loc": ("steps",), "msg": "not a number"}]

class Field:
    def __init__(self, alias=None):
        self.alias = alias

class Second:
    model_fields = {"prompt": Field(), "steps": Field(), "size": Field("width")}
    @classmethod
    def model_validate(cls, values):
        if values.get("steps") == "many":
            raise Unfit()
        return cls(), values

class First:
    __fields__ = {"prompt": Field()}
    @classmethod
    def parse_obj(cls, values):
        return cls(), values

from typing import Optional
'''


def invoke(source, body, name="run"):
    return functions(MODELS + source)[name].invoke(json.dumps(body).encode(), "the-run", "the-logger")


class Whole(unittest.TestCase):
    def test_the_body_becomes_the_one_parameter(self):
        for annotation in ("First", "Second", "Optional[Second]", "'Second'"):
            with self.subTest(annotation):
                source = "def run(params: {}): return params".format(annotation)
                self.assertEqual(functions(MODELS + source)["run"].contract, "model")
                model, values = invoke(source, {"prompt": "x"})
                self.assertIn(type(model).__name__, annotation)
                self.assertEqual(values, {"prompt": "x"})

    def test_the_run_id_is_injected_beside_it_unless_the_body_has_one(self):
        source = "def run(params: Second, run_id): return params[1], run_id"
        self.assertEqual(invoke(source, {"prompt": "x"}), ({"prompt": "x"}, "the-run"))
        self.assertEqual(invoke(source, {"prompt": "x", "run_id": "mine"}), ({"prompt": "x"}, "mine"))

    def test_the_servers_own_keys_stay_out_unless_they_are_fields(self):
        body = {"prompt": "x", "width": 3, "webhook_endpoint": "https://x", "webhook_metadata": {}, "run_id": "r"}
        self.assertEqual(invoke("def run(params: Second): return params", body)[1], {"prompt": "x", "width": 3})
        self.assertEqual(
            invoke("Second.model_fields['webhook_endpoint'] = Field()\ndef run(params: Second): return params", body)[1],
            {"prompt": "x", "width": 3, "webhook_endpoint": "https://x"},
        )

    def test_the_parameters_own_name_may_lead_to_it(self):
        source = "def run(params: Second): return params[1]"
        self.assertEqual(invoke(source, {"params": {"prompt": "x"}, "webhook_endpoint": "https://x"}), {"prompt": "x"})
        body = {"params": {"prompt": "x"}, "prompt": "y"}
        self.assertEqual(invoke(source, body), body)
        self.assertEqual(invoke("def run(prompt: Second): return prompt[1]", {"prompt": {"a": 1}}), {"prompt": {"a": 1}})

    def test_what_does_not_fit_is_named(self):
        with self.assertRaisesRegex(Exception, "the body does not fit Second: `steps`: not a number") as caught:
            invoke("def run(params: Second): pass", {"steps": "many"})
        self.assertEqual(type(caught.exception).__name__, "Invalid")


class Among(unittest.TestCase):
    SOURCE = "def run(params: Second, n=1, other: Optional[First] = None): return params, n, other"

    def test_objects_become_the_models_of_their_parameters(self):
        self.assertEqual(functions(MODELS + self.SOURCE)["run"].contract, "keywords")
        params, n, other = invoke(self.SOURCE, {"params": {"prompt": "x"}, "n": 2, "other": None})
        self.assertEqual((params[1], n, other), ({"prompt": "x"}, 2, None))
        with self.assertRaisesRegex(Exception, "`params.steps`: not a number"):
            invoke(self.SOURCE, {"params": {"steps": "many"}})

    def test_the_item_of_2023_stays_an_object(self):
        source = "def predict(item: Second, run_id, logger): return item"
        self.assertEqual(functions(MODELS + source)["predict"].contract, "item")
        self.assertEqual(invoke(source, {"a": 1}, "predict"), {"a": 1})

    def test_annotations_that_cannot_be_resolved_convert_nothing(self):
        self.assertEqual(invoke("def run(params: 'Absent'): return params", {"params": {"a": 1}}), {"a": 1})


if __name__ == "__main__":
    unittest.main()
