"""From the first frame to `ready` or `failed`."""

import json
import platform
import sys
import unittest

from worker_side import FAILED, RESULT, ReplicaTest


class Ready(ReplicaTest):
    def test_ready_names_python_and_functions(self):
        replica = self.replica("def predict(item, run_id, logger): pass")
        _, _, fields = replica.next()
        value = json.loads(fields["json"])
        self.assertEqual(list(value), ["protocol", "python", "functions"])
        self.assertEqual((value["protocol"], value["python"]), (1, platform.python_version()))
        self.assertEqual([function["name"] for function in value["functions"]], ["predict"])

    def test_the_app_finds_its_folder_environment_and_secrets(self):
        source = """
            import os, sys, helper
            at_import = os.environ["TOKEN"]
            def run():
                return [os.getcwd(), sys.path[0], os.environ["A"], at_import, helper.NAME, __name__, sys.argv]
        """
        files = {"helper.py": "NAME = 'helper'"}
        replica = self.replica(source, files=files, environment={"A": "b"}, secrets={"TOKEN": "t"}).ready()
        folder = str(replica.folder)
        expected = [folder, folder, "b", "t", "helper", "main", [folder + "/main.py"]]
        self.assertEqual(replica.call("run").value, expected)

    def test_modules_of_the_app_may_have_the_names_of_ours(self):
        names = ("logs", "frames", "loop", "encode", "contract", "channel", "calls", "failure", "faults")
        source = "import {}\ndef run(): return [{}]".format(", ".join(names), ", ".join(n + ".OWN" for n in names))
        replica = self.replica(source, files={name + ".py": "OWN = 1" for name in names}).ready()
        self.assertEqual(replica.call("run").value, [1] * len(names))

    def test_an_entry_in_a_folder_finds_what_lies_beside_it(self):
        replica = self.replica("import beside\ndef run(): return beside.X", entry="src/main.py", files={"src/beside.py": "X = 1"})
        self.assertEqual(replica.ready().call("run").value, 1)

    def test_the_main_block_does_not_run(self):
        replica = self.replica("def run(): return 1\nif __name__ == '__main__': raise SystemExit('never')").ready()
        self.assertEqual(replica.call("run").value, 1)


class Failed(ReplicaTest):
    def failed(self, source, **options):
        replica = self.replica(source, **options)
        kind, _, fields = replica.next()
        self.assertEqual(kind, FAILED)
        self.assertEqual(replica.exit_status(), 1)
        return json.loads(fields["json"]), replica

    def test_an_import_that_raises_fails_with_the_apps_traceback(self):
        value, replica = self.failed("print('loading')\nimport no_such_module_here\n")
        self.assertEqual(list(value), ["type", "message", "traceback"])
        self.assertEqual(value["type"], "ModuleNotFoundError")
        self.assertEqual(value["message"], "No module named 'no_such_module_here'")
        self.assertIn("main.py\", line 2", value["traceback"])
        self.assertNotIn("runner/", value["traceback"])
        self.assertNotIn("importlib", value["traceback"])
        self.assertEqual([fields["line"] for _, fields in replica.lines], ["loading"])

    def test_a_syntax_error_shows_its_line(self):
        value, _ = self.failed("def run(:\n")
        self.assertEqual(value["type"], "SyntaxError")
        self.assertIn("def run(:", value["traceback"])

    def test_sys_exit_while_importing_and_a_missing_file_are_failures(self):
        self.assertEqual(self.failed("import sys; sys.exit(4)")[0]["type"], "SystemExit")
        replica = self.replica(start=False)
        (replica.folder / "main.py").unlink()
        replica.start(1, "main.py", {}, {})
        kind, _, fields = replica.next()
        self.assertEqual((kind, json.loads(fields["json"])["type"]), (FAILED, "FileNotFoundError"))

    def test_an_app_without_functions_is_told_what_to_write(self):
        value, _ = self.failed("x = 1")
        self.assertEqual(value["type"], "NoFunctions")
        self.assertIn("def predict(item, run_id, logger)", value["message"])


class Secrets(ReplicaTest):
    SOURCE = """
        from cerebrium import get_secret
        def run(key): return get_secret(key)
    """

    def test_secrets_come_from_the_file_beside_the_app_and_then_from_the_environment(self):
        json_file = {"secrets.json": '{"A": "from json"}'}
        yaml_file = {"secrets.yaml": "%YAML 1.2\n---\n# comment\nA: 'from yaml'  # why\nC: plain # why\n"}
        for files, expected in (
            ({}, ["from environment", None]),
            (json_file, ["from json", None]),
            (yaml_file, ["from yaml", "plain"]),
        ):
            replica = self.replica(self.SOURCE, files=files, secrets={"A": "from environment"}).ready()
            self.assertEqual([replica.call("run", {"key": key}).value for key in ("A", "C")], expected)

    def test_a_missing_secret_is_none_and_an_error_in_the_log(self):
        answer = self.replica(self.SOURCE).ready().call("run", {"key": "HF_TOKEN"})
        self.assertEqual((answer.kind, answer.value), (RESULT, None))
        self.assertIn("there is no secret 'HF_TOKEN'", answer.text[0])

    def test_an_installed_package_of_that_name_is_preferred(self):
        files = {"cerebrium.py": "def get_secret(key): return 'the real one'"}
        replica = self.replica(self.SOURCE, files=files).ready()
        self.assertEqual(replica.call("run", {"key": "A"}).value, "the real one")


class Python(unittest.TestCase):
    def test_the_version_under_test_is_one_we_promise(self):
        self.assertGreaterEqual(sys.version_info, (3, 8))


if __name__ == "__main__":
    unittest.main()
