"""`print` and `logging` inside a call belong to that call."""

import time
import unittest

from worker_side import STOP, ReplicaTest, frame


class Owners(ReplicaTest):
    def test_lines_come_before_the_answer_with_stream_and_timestamps_of_their_own(self):
        source = """
            import sys
            def run():
                print("one")
                print("two", 2, sep=" | ")
                sys.stderr.write("three\\nfour\\n")
                sys.stdout.write("not ended")
        """
        before = time.time_ns() // 1000
        answer = self.replica(source).ready().call("run")
        self.assertEqual(answer.text, ["one", "two | 2", "three", "four", "not ended"])
        self.assertEqual([line["stream"] for line in answer.lines], [1, 1, 2, 2, 1])
        stamps = [line["microseconds"] for line in answer.lines]
        self.assertEqual(stamps, sorted(set(stamps)))
        self.assertTrue(before <= stamps[0] <= stamps[-1] <= time.time_ns() // 1000 + 1000)

    def test_a_line_leaves_while_its_call_goes_on(self):
        source = """
            import time
            def run():
                print("early")
                time.sleep(60)
        """
        replica = self.replica(source).ready()
        replica.send(replica.request(3, "run"))
        call, fields = replica.next_line()
        self.assertEqual((call, fields["line"]), (3, "early"))

    def test_calls_side_by_side_keep_their_lines_apart(self):
        source = """
            import asyncio, time
            def run(n):
                for index in range(20):
                    print("call", n, end=" ")
                    time.sleep(0.001)
                    print("line", index)
            async def arun(n):
                for index in range(20):
                    print("call", n, end=" ")
                    await asyncio.sleep(0.001)
                    print("line", index)
        """
        replica = self.replica(source, concurrency=8).ready()
        for name in ("run", "arun"):
            replica.send(*[replica.request(n, name, {"n": n}) for n in range(1, 9)])
            for n, answer in replica.answers(*range(1, 9)).items():
                self.assertEqual(answer.text, ["call {} line {}".format(n, index) for index in range(20)])

    def test_threads_started_inside_a_call_belong_to_it(self):
        source = """
            import concurrent.futures, threading
            pool = concurrent.futures.ThreadPoolExecutor(1)
            def run(n):
                thread = threading.Thread(target=lambda: print("thread", n))
                thread.start()
                thread.join()
                pool.submit(print, "pool", n).result()
        """
        replica = self.replica(source).ready()
        for number in (1, 2):
            self.assertEqual(replica.call("run", {"n": number}, number).text, ["thread %d" % number, "pool %d" % number])

    def test_what_is_printed_after_the_answer_or_outside_calls_is_the_replicas(self):
        source = """
            import asyncio, threading, time
            print("at import", end="")
            def run():
                threading.Timer(0.1, print, ["afterwards"]).start()
            async def arun():
                asyncio.get_running_loop().call_later(0.1, print, "much later")
        """
        replica = self.replica(source, concurrency=2).ready()
        self.assertEqual(replica.next_line()[1]["line"], "at import")
        for name, line in (("run", "afterwards"), ("arun", "much later")):
            self.assertEqual(replica.call(name).text, [])
            call, fields = replica.next_line()
            self.assertEqual((call, fields["line"]), (0, line))

    def test_no_line_of_a_call_comes_after_its_answer_however_threads_race(self):
        source = """
            import sys, threading
            sys.setswitchinterval(1e-6)
            def run():
                def chatter():
                    for _ in range(300): print("x")
                for _ in range(3): threading.Thread(target=chatter).start()
        """
        replica = self.replica(source, concurrency=4).ready()
        for number in range(1, 60):
            replica.call("run", number=number)
        replica.send(frame(STOP, 0))
        late = []
        try:
            while True:
                late.append(replica.next_line()[0])
        except (EOFError, ConnectionResetError):
            pass
        self.assertEqual(set(late), {0})

    def test_an_exception_in_a_thread_of_the_app_is_the_replicas_log_on_stderr(self):
        source = """
            import threading
            thread = threading.Thread(target=lambda: 1 / 0)
            thread.start()
            thread.join()
            def run(): pass
        """
        replica = self.replica(source).ready()
        self.assertIn("ZeroDivisionError: division by zero", [fields["line"] for _, fields in replica.lines])
        self.assertEqual({(call, fields["stream"]) for call, fields in replica.lines}, {(0, 2)})


class Lines(ReplicaTest):
    def test_the_logger_of_predict_and_logging_write_lines(self):
        source = """
            import logging
            logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
            def predict(item, run_id, logger):
                logger.info("elapsed %s seconds", 10)
                logger.warning("careful")
                logger.debug("detail")
                try:
                    1 / 0
                except ZeroDivisionError:
                    logger.exception("broken")
                logging.getLogger("library").info("from a library")
        """
        text = self.replica(source).ready().call("predict").text
        self.assertEqual(text[:4], ["elapsed 10 seconds", "WARNING: careful", "DEBUG: detail", "ERROR: broken"])
        self.assertEqual(text[4], "Traceback (most recent call last):")
        self.assertEqual(text[-1], "INFO from a library")

    def test_long_lines_are_cut_at_a_character(self):
        replica = self.replica("def run(): print('é' * 20_000); print('a' + 'é' * 20_000); print('next')").ready()
        text = replica.call("run").text
        self.assertEqual([len(line.encode()) for line in text], [16384, 16383, 4])

    def test_a_line_without_end_takes_no_memory(self):
        source = """
            import sys
            def run():
                for _ in range(1000): sys.stdout.write("x" * 10_000)
                import postback_runner.logs
                return sum(len(text) for text in sys.stdout._streams._begun.values())
        """
        answer = self.replica(source).ready().call("run")
        self.assertLess(answer.value, 100_000)
        self.assertEqual(answer.text, ["x" * 16384])

    def test_a_progress_bar_is_one_line_in_its_last_state(self):
        source = """
            import sys
            def run():
                for n in range(101): sys.stderr.write(f"\\r{n} %")
                sys.stderr.write("\\n")
                print("windows\\r\\n", end="")
                print("split\\r", end=""); print("\\n", end="")
        """
        self.assertEqual(self.replica(source).ready().call("run").text, ["100 %", "windows", "split"])

    def test_text_that_is_no_utf_8_is_escaped(self):
        self.assertEqual(self.replica("def run(): print('a\\udcff')").ready().call("run").text, ["a\\udcff"])

    def test_the_streams_do_what_programs_ask_of_them(self):
        source = """
            import subprocess, sys
            def run():
                sys.stdout.buffer.write("é bytes\\n".encode())
                sys.stdout.flush()
                sys.stdout.reconfigure(line_buffering=True)
                sys.stdout.writelines(["a\\n", "b\\n"])
                subprocess.run(["echo", "from a program"], stdout=sys.stdout)
                return [sys.stdout.isatty(), sys.stdout.encoding, sys.stdout.fileno(), sys.stderr.name]
        """
        replica = self.replica(source).ready()
        answer = replica.call("run")
        self.assertEqual(answer.text, ["é bytes", "a", "b"])
        self.assertEqual(answer.value, [False, "utf-8", 1, "<stderr>"])
        replica.socket.close()
        self.assertEqual(replica.output()[0], "from a program\n")

    def test_a_signal_handler_that_prints_while_lines_are_sent_harms_nobody(self):
        source = """
            import signal
            def run():
                signal.signal(signal.SIGALRM, lambda *_: print("tick"))
                signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
                for _ in range(20): print(("y" * 10_000 + "\\n") * 100, end="")
                for _ in range(3000): print("y" * 500)
                signal.setitimer(signal.ITIMER_REAL, 0)
        """
        text = "".join(self.replica(source).ready().call("run").text)
        self.assertEqual(text.count("y"), 20 * 100 * 10_000 + 3000 * 500)
        self.assertEqual(text.replace("y", "").replace("tick", ""), "")
        self.assertIn("tick", text)


if __name__ == "__main__":
    unittest.main()
