"""The golden frames of `protocol/frames`, read and written."""

import json
import unittest

import worker_side
from worker_side import GOLDEN
from runner import frames


def golden(direction):
    found = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(GOLDEN.glob("*.json"))]
    return [one for one in found if one["direction"] == direction]


def cut(data, step):
    """`data` as a reader sees it that gets `step` bytes at a time."""
    reader, found = frames.Reader(), []
    while data:
        room = reader.room()
        count = min(step, len(room), len(data))
        room[:count] = data[:count]
        found += reader.received(count)
        data = data[count:]
    return found


class FromWorker(unittest.TestCase):
    def test_every_golden_frame_is_read(self):
        seen = set()
        for one in golden("worker to runner"):
            with self.subTest(one["name"]):
                seen.add(one["kind"])
                [(kind, call, payload)] = cut(bytes.fromhex(one["frame_hex"]), 1 << 20)
                self.assertEqual((kind, call), (one["kind"], one["call"]))
                self.assertEqual(payload.hex(), one["payload_hex"])
                fields = one["fields"]
                if kind == frames.START:
                    self.assertEqual(frames.read_start(payload), json.loads(fields["json"]))
                elif kind in (frames.CALL, frames.STREAM, frames.LIVE):
                    expected = (fields["function"], fields["attempt"], fields["run_id"], fields["json"].encode())
                    self.assertEqual(frames.read_call(call, payload), expected)
                else:
                    self.assertIsNone(frames.read_empty(payload))
        self.assertEqual(seen, {frames.START, frames.CALL, frames.CANCEL, frames.STOP, frames.STREAM, frames.LIVE})

    def test_frames_come_out_whole_however_the_bytes_arrive(self):
        stream = b"".join(bytes.fromhex(one["frame_hex"]) for one in golden("worker to runner"))
        whole = cut(stream, 1 << 20)
        for step in (1, 2, 3, 7, 64):
            self.assertEqual(cut(stream, step), whole)

    def test_a_frame_larger_than_the_buffer_is_read_and_its_memory_given_back(self):
        payload = bytes(range(256)) * 8192
        stream = worker_side.frame(2, 1, payload) + worker_side.frame(4, 0)
        self.assertEqual(cut(stream, 100_000), [(2, 1, payload), (4, 0, b"")])
        reader = frames.Reader()
        reader.room()[:4] = (64 << 20).to_bytes(4, "big")
        reader.received(4)
        self.assertLessEqual(64 << 20, len(reader.room()) + 4)


class ToWorker(unittest.TestCase):
    def test_every_golden_frame_is_written(self):
        seen = set()
        for one in golden("runner to worker"):
            with self.subTest(one["frame_hex"]):
                seen.add(one["kind"])
                written = self.written(one)
                self.assertEqual(written.hex(), one["frame_hex"])
                self.assertEqual(worker_side.read(one["kind"], bytes.fromhex(one["payload_hex"])), one["fields"])
        kinds = {frames.READY, frames.FAILED, frames.RESULT, frames.ERROR, frames.LOG, frames.OUTPUT, frames.CHUNK}
        self.assertEqual(seen, kinds)

    def written(self, one):
        kind, call, fields = one["kind"], one["call"], one["fields"]
        if kind == frames.READY:
            value = json.loads(fields["json"])
            return frames.ready(value["python"], value["functions"])
        if kind == frames.FAILED:
            value = json.loads(fields["json"])
            return frames.failed(value["type"], value["message"], value["traceback"])
        if kind == frames.RESULT:
            body = fields["json"].encode()
            return frames.result_head(call, fields["status"], fields["milliseconds"], len(body)) + body
        if kind == frames.ERROR:
            value = json.loads(fields["json"])
            parts = [value.get(k) for k in ("code", "type", "message", "traceback", "status")]
            return frames.error(call, fields["milliseconds"], *parts)
        if kind == frames.CHUNK:
            return frames.chunk(call, fields["text"].encode())
        if kind == frames.OUTPUT:
            value = fields["json"].encode() or bytes(frames.OUTPUT_BYTES_MAX + 1)
            return frames.output(call, value)
        return frames.log(call, fields["stream"], fields["microseconds"], fields["line"].encode())


class Broken(worker_side.ReplicaTest):
    def test_every_broken_frame_ends_the_replica_with_70_and_a_reason(self):
        paths = sorted((GOLDEN / "broken").glob("*.json"))
        found = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
        found = [one for one in found if one["direction"] == "worker to runner"]
        self.assertTrue(found)
        for one in found:
            with self.subTest(one["name"], why=one["why"]):
                replica = self.replica("def run(): pass").ready()
                replica.send(bytes.fromhex(one["frame_hex"]))
                self.assertEqual(replica.exit_status(), 70)
                self.assertIn("the worker broke the protocol: ", replica.output()[1])

    def test_an_unknown_function_or_a_call_twice_ends_the_replica_with_70(self):
        replica = self.replica("def run(): pass").ready()
        replica.send(worker_side.frame(2, 1, b"\x00\x07\x00\x01" + worker_side.RUN_ID.encode()))
        self.assertEqual(replica.exit_status(), 70)
        replica = self.replica("import time\ndef run(): time.sleep(60)").ready()
        replica.send(replica.request(1, "run") * 2)
        self.assertEqual(replica.exit_status(), 70)

    def test_a_call_before_ready_or_a_start_of_another_protocol_ends_the_replica_with_70(self):
        replica = self.replica(start=False)
        replica.send(worker_side.frame(2, 1, bytes(4) + worker_side.RUN_ID.encode()))
        self.assertEqual(replica.exit_status(), 70)
        replica = self.replica(start=False)
        replica.send(worker_side.frame(1, 0, b'{"protocol":2}'))
        self.assertEqual(replica.exit_status(), 70)
        self.assertIn("the worker speaks protocol 2; this runner speaks 1", replica.output()[1])


if __name__ == "__main__":
    unittest.main()
