"""Calls of a real replica: results, errors, cancels, and how the process ends."""

import json
import os
import signal
import time
import unittest

from worker_side import CANCEL, ERROR, OUTPUT, RESULT, RUN_ID, STOP, STREAM, ReplicaTest, frame

BOTH = (1, 8)


class Results(ReplicaTest):
    def test_functions_of_every_kind_answer_in_every_concurrency(self):
        source = """
            import asyncio

            def predict(item, run_id, logger):
                return {"item": item, "run": run_id}

            def words(n):
                for index in range(n):
                    yield f"word {index}"

            async def later(n):
                await asyncio.sleep(0)
                return n + 1

            async def ticks(n):
                for index in range(n):
                    yield index

            def disguised(n):
                return later(n)

            def handed_on(n):
                return (index for index in range(n))
        """
        for concurrency in BOTH:
            with self.subTest(concurrency=concurrency):
                replica = self.replica(source, concurrency=concurrency).ready()
                for name, body, expected in (
                    ("predict", {"a": 1}, {"item": {"a": 1}, "run": RUN_ID}),
                    ("words", {"n": 2}, ["word 0", "word 1"]),
                    ("later", {"n": 1}, 2),
                    ("ticks", {"n": 3}, [0, 1, 2]),
                    ("disguised", {"n": 1}, 2),
                    ("handed_on", {"n": 2}, [0, 1]),
                ):
                    answer = replica.call(name, body)
                    self.assertEqual((answer.kind, answer.value), (RESULT, expected), name)

    def test_what_a_generator_yields_is_told_as_it_comes_when_that_was_asked_for(self):
        source = """
            def words(n):
                for index in range(n):
                    print("line", index)
                    yield {"word": f"wörd {index}"}

            async def ticks(n):
                for index in range(n):
                    yield index

            def long(n):
                yield "x" * 70000
                yield object()

            def plain(n):
                return n
        """
        for concurrency in BOTH:
            with self.subTest(concurrency=concurrency):
                replica = self.replica(source, concurrency=concurrency).ready()

                def told(name, kind):
                    replica.send(replica.request(1, name, {"n": 2}, kind=kind))
                    values = []
                    while True:
                        kind, call, fields = replica.next()
                        self.assertEqual(call, 1)
                        if kind != OUTPUT:
                            return values, kind, fields["json"]
                        values.append(fields["json"])

                words = ['{"word":"wörd 0"}', '{"word":"wörd 1"}']
                self.assertEqual(told("words", STREAM), (words, RESULT, "[" + ",".join(words) + "]"))
                self.assertEqual(told("ticks", STREAM), (["0", "1"], RESULT, "[0,1]"))
                self.assertEqual(told("plain", STREAM), ([], RESULT, "2"))
                self.assertEqual(told("words", 2)[0], [])
                values, kind, _ = told("long", STREAM)
                # Too long to be told, and no JSON at all: the one is counted, the other is the result's to refuse.
                self.assertEqual((values, kind), ([""], ERROR))

    def test_the_delay_examples_answer_is_the_expected_bytes(self):
        answer = self.replica('def run(): return {"result": "Delayed for 0 mins"}').ready().call("run")
        self.assertEqual((answer.status, answer.json), (200, '{"result":"Delayed for 0 mins"}'))
        self.assertGreater(answer.milliseconds, 0)
        self.assertLess(answer.milliseconds, 1000)

    def test_integers_pass_through_whole_and_spaces_do_not_matter(self):
        answer = self.replica("def run(n): return [n, -n]").ready().call("run", b' { "n" : 123456789012345678901234567890 }\n')
        self.assertEqual(answer.json, "[123456789012345678901234567890,-123456789012345678901234567890]")

    def test_integers_of_many_digits_pass_through_whole(self):
        digits = b"7" * 100_000
        answer = self.replica("def run(n): return n").ready().call("run", b'{"n":' + digits + b"}")
        self.assertEqual(answer.json.encode(), digits)

    def test_the_results_own_status_code_travels(self):
        answer = self.replica('def run(): return {"status_code": 422, "why": "x"}').ready().call("run")
        self.assertEqual(answer.status, 422)

    def test_large_bodies_and_results_pass(self):
        text = "é" * (4 << 20)
        answer = self.replica("def run(text): return text").ready().call("run", {"text": text})
        self.assertEqual(answer.value, text)

    def test_calls_run_side_by_side_up_to_the_concurrency(self):
        source = """
            import asyncio, threading
            barrier = threading.Barrier(4, timeout=10)
            arrived = 0

            def meet():
                barrier.wait()
                return True

            async def ameet():
                global arrived
                arrived += 1
                while arrived < 4:
                    await asyncio.sleep(0.001)
                return True
        """
        replica = self.replica(source, concurrency=4).ready()
        for name in ("meet", "ameet"):
            replica.send(*[replica.request(number, name) for number in range(1, 5)])
            self.assertEqual([a.kind for a in replica.answers(1, 2, 3, 4).values()], [RESULT] * 4)

    def test_with_concurrency_1_functions_run_in_the_main_thread(self):
        source = """
            import threading
            def run(): return threading.current_thread() is threading.main_thread()
        """
        self.assertIs(self.replica(source).ready().call("run").value, True)

    def test_the_contract_of_2023_has_a_concurrency_of_its_own(self):
        source = """
            import threading
            def {}: return threading.current_thread() is threading.main_thread()
        """
        for function, in_main_thread in (("run(item, run_id, logger)", True), ("run(item)", False)):
            with self.subTest(function=function):
                replica = self.replica(source.format(function), concurrency=8, item_concurrency=1).ready()
                self.assertIs(replica.call("run", b'{"item":1}').value, in_main_thread)

    def test_what_async_functions_leave_running_goes_on_between_calls(self):
        source = """
            import asyncio
            seen = None
            async def begin():
                global seen
                seen = asyncio.Event()
                asyncio.get_running_loop().call_later(0.05, seen.set)
            async def end():
                await asyncio.wait_for(seen.wait(), 10)
                return True
        """
        replica = self.replica(source).ready()
        replica.call("begin")
        self.assertIs(replica.call("end").value, True)

    def test_a_task_left_running_that_exits_strands_no_call(self):
        source = """
            import asyncio, sys
            tasks = []
            async def leave():
                async def quit(): sys.exit(3)
                tasks.append(asyncio.create_task(quit()))
            async def run(): return 1
        """
        replica = self.replica(source).ready()
        replica.call("leave")
        self.assertEqual(replica.call("run").value, 1)


class Errors(ReplicaTest):
    def error(self, source, name="run", body=b"", **options):
        answer = self.replica(source, **options).ready().call(name, body)
        self.assertEqual(answer.kind, ERROR, answer.json)
        return answer.value

    def test_an_exception_carries_type_message_and_the_apps_own_frames(self):
        source = """
            def deeper(): raise ValueError("no such voice: Zoë")
            def run(): deeper()
            async def arun(): deeper()
        """
        for concurrency in BOTH:
            for name in ("run", "arun"):
                with self.subTest(name=name, concurrency=concurrency):
                    error = self.error(source, name, concurrency=concurrency)
                    self.assertEqual(list(error), ["code", "type", "message", "traceback"])
                    self.assertEqual((error["code"], error["type"]), ("user_error", "ValueError"))
                    self.assertEqual(error["message"], "no such voice: Zoë")
                    lines = error["traceback"].splitlines()
                    self.assertEqual(lines[0], "Traceback (most recent call last):")
                    self.assertIn("main.py", lines[1])
                    self.assertIn('raise ValueError("no such voice: Zoë")', error["traceback"])
                    self.assertNotIn("runner/", error["traceback"])

    def test_a_wrong_parameter_is_a_type_error_that_names_it(self):
        error = self.error("def run(n): pass", body={"m": 1})
        self.assertEqual((error["code"], error["type"]), ("user_error", "TypeError"))
        self.assertIn("'m'", error["message"])

    def test_sys_exit_is_an_error_of_the_call_and_not_the_replicas_end(self):
        source = """
            import sys
            def run(): sys.exit(3)
            async def arun(): sys.exit("why")
            def fine(): return 1
        """
        for concurrency in BOTH:
            replica = self.replica(source, concurrency=concurrency).ready()
            error = replica.call("run").value
            self.assertEqual((error["code"], error["type"]), ("user_error", "SystemExit"))
            self.assertEqual(error["message"], "the function called sys.exit(3)")
            self.assertEqual(replica.call("arun").value["type"], "SystemExit")
            self.assertEqual(replica.call("fine").value, 1)

    def test_results_that_json_cannot_write_are_invalid(self):
        for expression in ("float('nan')", "float('inf')", "object()", "{'a': {1, 1j}}"):
            error = self.error("def run(): return " + expression)
            self.assertEqual(error["code"], "result_invalid")
            self.assertIsNone(error["traceback"])

    def test_code_that_runs_while_a_result_is_written_cannot_end_the_replica(self):
        source = """
            import sys

            class Exits:
                def model_dump(self, mode):
                    sys.exit(3)

            class Get(dict):
                def get(self, *_):
                    raise KeyError("no")

            class Liar:
                @property
                def __class__(self):
                    sys.exit(3)

            class Key:
                def __repr__(self):
                    sys.exit(3)

            def values(n):
                return [Exits(), [Exits()], Get(a=1), {Key(): 1}, Liar()][n]

            async def awaited(n):
                return values(n)

            def fine():
                return 1
        """
        for concurrency in (1, 4):
            replica = self.replica(source, concurrency=concurrency).ready()
            for function in ("values", "awaited"):
                for n in range(5):
                    answer = replica.call(function, {"n": n})
                    self.assertEqual(answer.kind, ERROR, (function, n))
                    self.assertIn(answer.value["code"], ("result_invalid", "user_error"), (function, n))
            self.assertEqual(replica.call("fine", {}).value, 1)

    def test_a_result_over_the_bound_is_too_large_also_from_a_generator_without_end(self):
        self.assertEqual(self.error("def run(): return 'x' * (100 << 20)")["code"], "result_too_large")
        endless = """
            def run():
                while True:
                    yield "x" * (1 << 20)
        """
        self.assertEqual(self.error(endless)["code"], "result_too_large")

    def test_tracebacks_and_messages_are_bounded_and_keep_their_end(self):
        error = self.error("def run(): raise ValueError('a' * 1_000_000 + 'the end')")
        self.assertLessEqual(len(error["traceback"].encode()), 64 << 10)
        self.assertLessEqual(len(error["message"].encode()), 16 << 10)
        self.assertTrue(error["message"].endswith("the end"))

    def test_exceptions_that_cannot_be_printed_are_reported_all_the_same(self):
        source = """
            class Bad(Exception):
                def __str__(self): raise RuntimeError("worse")
            def run(): raise Bad()
            def odd(): raise ValueError("\\ud800")
        """
        self.assertEqual(self.error(source)["type"], "Bad")
        self.assertEqual(self.error(source, "odd")["message"], "\\ud800")

    def test_endless_recursion_is_an_error_like_any_other(self):
        self.assertEqual(self.error("def run(): return run()")["type"], "RecursionError")


class Cancels(ReplicaTest):
    SLEEPS = """
        import asyncio, time

        def sleeps():
            print("inside")
            time.sleep(60)

        def spins():
            print("inside")
            while True: pass

        async def waits():
            print("inside")
            await asyncio.sleep(60)

        def refuses():
            try:
                print("inside")
                while True: time.sleep(0.01)
            except BaseException:
                return "finished anyway"

        def fine(): return 1
    """

    def cancelled(self, replica, name):
        replica.send(replica.request(7, name))
        self.assertEqual(replica.next_line()[1]["line"], "inside")
        begun = time.monotonic()
        replica.send(frame(CANCEL, 7))
        answer = replica.answers(7)[7]
        self.assertLess(time.monotonic() - begun, 5)
        return answer

    def test_a_cancel_ends_sleeping_spinning_and_waiting_functions(self):
        for concurrency, names in ((1, ("sleeps", "spins", "waits")), (8, ("spins", "waits"))):
            replica = self.replica(self.SLEEPS, concurrency=concurrency).ready()
            for name in names:
                with self.subTest(name=name, concurrency=concurrency):
                    answer = self.cancelled(replica, name)
                    self.assertEqual(answer.kind, ERROR)
                    self.assertEqual((answer.value["code"], answer.value["type"]), ("cancelled", "CancelledByPostback"))
                    self.assertGreater(answer.milliseconds, 0)
                    self.assertEqual(replica.call("fine").value, 1)

    def test_a_function_may_finish_in_spite_of_a_cancel(self):
        for concurrency in BOTH:
            answer = self.cancelled(self.replica(self.SLEEPS, concurrency=concurrency).ready(), "refuses")
            self.assertEqual((answer.kind, answer.value), (RESULT, "finished anyway"))

    def test_a_cancel_in_the_same_write_as_its_call_still_answers_once(self):
        for concurrency in BOTH:
            replica = self.replica(self.SLEEPS, concurrency=concurrency).ready()
            for name in ("spins", "waits"):
                replica.send(replica.request(1, name) + frame(CANCEL, 1))
                self.assertEqual(replica.answers(1)[1].value["code"], "cancelled")

    def test_late_and_repeated_cancels_harm_nobody(self):
        for concurrency in BOTH:
            replica = self.replica(self.SLEEPS, concurrency=concurrency).ready()
            for number in range(1, 200):
                replica.send(replica.request(number, "fine") + frame(CANCEL, number) * 2 + frame(CANCEL, 9999))
                answer = replica.answers(number)[number]
                self.assertIn((answer.kind, answer.value if answer.kind == RESULT else answer.value["code"]),
                              ((RESULT, 1), (ERROR, "cancelled")))
            self.assertEqual(replica.call("fine", number=1000).value, 1)

    def test_a_cancel_tears_no_frame_in_two_while_the_function_prints(self):
        source = """
            def run():
                print("inside")
                while True: print(("x" * 10_000 + "\\n") * 50, end="")
        """
        for concurrency in BOTH:
            replica = self.replica(source, concurrency=concurrency).ready()
            for number in range(1, 15):
                replica.send(replica.request(number, "run"))
                replica.next_line()
                replica.send(frame(CANCEL, number))
                answer = replica.answers(number)[number]
                self.assertEqual(answer.value["code"], "cancelled")
                self.assertLessEqual({line for line in answer.text[1:]}, {"x" * 10_000, "inside"})


class Ends(ReplicaTest):
    def test_stop_finishes_what_is_under_way_and_runs_exit_functions(self):
        source = """
            import atexit, threading, time
            atexit.register(lambda: open("left", "w").write("yes"))
            threading.Thread(target=time.sleep, args=(600,)).start()
            def run():
                print("inside")
                time.sleep(0.2)
                return 1
        """
        for concurrency in BOTH:
            replica = self.replica(source, concurrency=concurrency).ready()
            replica.send(replica.request(1, "run"))
            replica.next_line()
            replica.send(frame(STOP, 0))
            self.assertEqual(replica.answers(1)[1].value, 1)
            self.assertEqual(replica.exit_status(), 0)
            self.assertEqual((replica.folder / "left").read_text(), "yes")

    def test_stop_ends_an_idle_replica_and_one_that_still_imports(self):
        replica = self.replica("def run(): pass").ready()
        replica.send(frame(STOP, 0))
        self.assertEqual(replica.exit_status(), 0)
        replica = self.replica("import time\ntime.sleep(0.3)\ndef run(): pass")
        replica.send(frame(STOP, 0))
        self.assertEqual(replica.exit_status(), 0)

    def test_the_servers_end_ends_the_replica_whatever_it_does(self):
        for source, calls in (
            ("def run(): pass", False),
            ("import time\nprint('inside')\ntime.sleep(60)\ndef run(): pass", False),
            ("import time\ndef run():\n print('inside')\n time.sleep(60)", True),
            ("def run():\n print('inside')\n while True: pass", True),
        ):
            for concurrency in BOTH:
                with self.subTest(source=source, concurrency=concurrency):
                    replica = self.replica(source, concurrency=concurrency)
                    if calls:
                        replica.ready().send(replica.request(1, "run"))
                    if "inside" in source:
                        replica.next_line()
                    else:
                        replica.ready()
                    replica.socket.close()
                    begun = time.monotonic()
                    self.assertEqual(replica.exit_status(), 0)
                    self.assertLess(time.monotonic() - begun, 1.5)

    def test_a_crash_in_native_code_leaves_the_line_it_came_from(self):
        source = """
            import ctypes
            def run(): ctypes.string_at(0)
        """
        replica = self.replica(source).ready()
        replica.send(replica.request(1, "run"))
        self.assertEqual(replica.exit_status(), -signal.SIGSEGV)
        error = replica.output()[1]
        self.assertIn("Segmentation fault", error)
        self.assertIn("main.py", error)

    def test_os_exit_is_the_replicas_end_with_its_status(self):
        replica = self.replica("import os\ndef run(): os._exit(9)").ready()
        replica.send(replica.request(1, "run"))
        self.assertEqual(replica.exit_status(), 9)

    def test_processes_started_by_the_app_do_not_hold_the_socket(self):
        source = """
            import os, subprocess, sys
            def run():
                child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], close_fds=False)
                fork = os.fork()
                if fork == 0:
                    print("from the fork", flush=True)
                    import time
                    time.sleep(600)
                return [child.pid, fork, "POSTBACK_SOCKET_FD" in os.environ]
        """
        replica = self.replica(source).ready()
        answer = replica.call("run")
        child, fork, leaked = answer.value
        self.assertFalse(leaked)
        try:
            replica.process.kill()
            self.assertEqual(replica.socket.recv(1), b"")
            self.assertEqual(replica.process.stdout.readline(), b"from the fork\n")
        finally:
            os.kill(child, signal.SIGKILL)
            os.kill(fork, signal.SIGKILL)

    def test_multiprocessing_works_and_is_no_second_replica(self):
        source = """
            import multiprocessing
            def double(n): return 2 * n
            def run(method):
                with multiprocessing.get_context(method).Pool(2) as pool:
                    return pool.map(double, [1, 2, 3])
            if __name__ == "__main__":
                raise SystemExit("never")
        """
        for method in ("fork", "spawn"):
            answer = self.replica(source).ready().call("run", {"method": method})
            self.assertEqual((answer.kind, answer.value), (RESULT, [2, 4, 6]), json.dumps(answer.value))


if __name__ == "__main__":
    unittest.main()
