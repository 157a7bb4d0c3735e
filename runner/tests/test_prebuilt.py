"""The models that want a GPU or the hub, with stand-ins for the packages that they are made of: what they make of input,
what they ask those packages for, and what they say when it cannot be worked on. With the packages: `script/models`."""

import ast
import base64
import json
import pathlib
import re
import unittest

from worker_side import ERROR, RESULT, RUNNER, STREAM, ReplicaTest

PREBUILT = RUNNER.parent / "prebuilt"

WHISPER = {
    "av.py": "class error:\n    class FFmpegError(OSError): pass\n",
    "ctranslate2.py": "import os\ndef get_cuda_device_count(): return int(os.environ.get('FAKE_GPUS', 0))\n",
    "faster_whisper.py": '''
        import av

        def decode_audio(file, sampling_rate):
            data = file.read()
            if not data.startswith(b"sound"):
                raise av.error.FFmpegError("invalid data")
            return [0.0] * (sampling_rate * int(data[5:]))

        class Part:
            def __init__(self, **fields): self.__dict__.update(fields)

        class WhisperModel:
            supported_languages = ["de", "en"]
            def __init__(self, *name, **settings):
                self.told = {"name": name[0], **settings}
            def transcribe(self, samples, **options):
                parts = (Part(start=n + 0.001, end=n + 1.0, text=f" part {n}") for n in range(2))
                about = Part(duration=len(samples) / 16000, language=options["language"] or "en")
                print(sorted({**self.told, **options}.items()))
                return parts, about
    ''',
}

CHAT = {
    "llama_cpp.py": '''
        class Llama:
            def __init__(self, model_path=None, **settings):
                self.told = {"path": model_path, **settings}
            @classmethod
            def from_pretrained(cls, repo_id, filename, **settings):
                made = cls(**settings)
                made.told.update(repo=repo_id, file=filename)
                return made
            def create_chat_completion(self, messages, stream, **options):
                print(sorted({**self.told, **options}.items(), key=str))
                said = messages[-1]["content"]
                if said == "too much":
                    raise ValueError("Requested tokens (9000) exceed context window of 8192")
                if stream:
                    tokens = self.generate([7] * 5, said=said)
                    words = [self.detokenize([token]).decode() for token in tokens]
                    ends = [None] * (len(words) - 1) + ["length" if words[-1] else "stop"]
                    return iter([
                        {"id": "1", "choices": [{"delta": {"content": word} if word else {}, "finish_reason": end}]}
                        for word, end in zip(words, ends)
                    ])
                message = {"role": "assistant", "content": said.upper()}
                return {"choices": [{"message": message, "finish_reason": "stop"}], "usage": {"total_tokens": 3}}
            def generate(self, tokens, said):
                self.words = said.split()
                yield from range(len(self.words))
                if "endless" not in self.words:
                    yield len(self.words)
            def detokenize(self, tokens):
                return "".join(self.words[token] for token in tokens if token < len(self.words)).encode()
    '''
}

DREAMBOOTH = {
    "torch.py": '''
        float16, float32 = "float16", "float32"
        class cuda:
            is_available = staticmethod(lambda: False)
            empty_cache = staticmethod(lambda: None)
        class Generator:
            def __init__(self, device): self.device = device
            def manual_seed(self, seed):
                self.seed = seed
                return self
    ''',
    "diffusers.py": '''
        class Image:
            def save(self, file, format):
                file.write(b"\\x89PNG" + format.encode())

        class DiffusionPipeline:
            @classmethod
            def from_pretrained(cls, path, **settings):
                if "absent" in path:
                    try:
                        raise ValueError("the hub knows no hf_secret" + " and no more" * 22 + "....." + "hf_secret")
                    except ValueError:
                        raise OSError("absent is no model; the token hf_secret does not open it")
                print("loads", path, sorted(settings.items(), key=str))
                return cls()
            def set_progress_bar_config(self, disable): pass
            def to(self, device): return self
            def __call__(self, generator, **arguments):
                print("paints", generator.seed, sorted(arguments.items()))
                self.images = [Image() for _ in range(arguments["num_images_per_prompt"])]
                return self
    ''',
}


def base64_of(data):
    return base64.b64encode(data).decode()



class Surface(unittest.TestCase):
    """A function without an underscore can be called by whoever has a key."""

    def test_models_offer_nothing_but_what_is_to_be_called(self):
        models = sorted(PREBUILT.glob("*/main.py"))
        self.assertGreaterEqual(len(models), 8)
        for model in models:
            tree = ast.parse(model.read_text())
            functions = (node for node in tree.body if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)))
            public = {function.name for function in functions if not function.name.startswith("_")}
            self.assertIn("predict", public, model)
            self.assertLessEqual(public, {"predict", "run"}, model)


class ModelTest(ReplicaTest):
    def model(self, name, files, **options):
        source = (PREBUILT / name / "main.py").read_text(encoding="utf-8")
        return self.replica(source, files=files, **options).ready()

    def sample(self, name):
        return json.loads((PREBUILT / name / "sample.json").read_text(encoding="utf-8"))

    def refused(self, replica, body, said, function="predict"):
        answer = replica.call(function, body)
        self.assertEqual((answer.kind, answer.status), (RESULT, 422), answer.json)
        self.assertIn(said, answer.json)


class Whisper(ModelTest):
    def test_sound_becomes_text_with_times_and_a_language(self):
        replica = self.model("whisper", WHISPER)
        answer = replica.call("predict", {"audio": base64_of(b"sound3")})
        self.assertEqual(
            answer.value,
            {
                "text": "part 0 part 1",
                "segments": [{"start": 0.0, "end": 1.0, "text": "part 0"}, {"start": 1.0, "end": 2.0, "text": "part 1"}],
                "language": "en",
            },
        )
        told = answer.text[0]
        for expected in ("('name', 'small')", "('device', 'cpu')", "('compute_type', 'int8')", "('task', 'transcribe')"):
            self.assertIn(expected, told)
        answer = replica.call("predict", {"audio": base64_of(b"sound3"), "mode": "translate", "language": "de"})
        self.assertIn("('task', 'translate')", answer.text[0])
        self.assertEqual(answer.value["language"], "de")

    def test_a_gpu_gets_the_large_model_and_a_secret_names_another(self):
        replica = self.model("whisper", WHISPER, environment={"FAKE_GPUS": "1"})
        told = replica.call("predict", {"audio": base64_of(b"sound1")}).text[0]
        for expected in ("('name', 'large-v3')", "('device', 'cuda')", "('compute_type', 'float16')"):
            self.assertIn(expected, told)
        replica = self.model("whisper", WHISPER, secrets={"WHISPER_MODEL": "tiny"})
        self.assertIn("('name', 'tiny')", replica.call("predict", {"audio": base64_of(b"sound1")}).text[0])

    def test_what_cannot_be_worked_on_is_named(self):
        replica = self.model("whisper", WHISPER)
        sound = base64_of(b"sound1")
        for body, said in (
            ({}, "send the audio as base64 under `audio`, or its address under `file_url`"),
            ({"audio": "no base64!"}, "`audio` is no base64"),
            ({"audio": base64_of(b"text")}, "no sound file that ffmpeg can read"),
            ({"audio": base64_of(b"sound7201")}, "longer than 7200 s"),
            ({"file_url": "file:///etc/passwd"}, "no address that begins with http"),
            ({"file_url": "http://127.0.0.1:9/nothing"}, "cannot be fetched"),
            ({"file_url": "http://127.0.0.1:9/a b"}, "cannot be fetched"),
            ({"file_url": "http://[::1/"}, "cannot be fetched"),
            ({"audio": sound, "mode": "sing"}, "`mode` is `sing`"),
            ({"audio": sound, "language": "klingon"}, "send one of de, en"),
        ):
            self.refused(replica, body, said)


class Chat(ModelTest):
    def test_a_plain_call_gets_the_text(self):
        replica = self.model("chat", CHAT)
        answer = replica.call("predict", {"prompt": "good day", "max_tokens": 7, "stop": "."})
        self.assertEqual(answer.value, {"result": "GOOD DAY", "finish_reason": "stop", "usage": {"total_tokens": 3}})
        told = answer.text[0]
        for expected in (
            "('repo', 'Qwen/Qwen2.5-1.5B-Instruct-GGUF')",
            "('file', '*q4_k_m.gguf')",
            "('n_gpu_layers', -1)",
            "('max_tokens', 7)",
            "('temperature', 0.7)",
            "('stop', ['.'])",
            "('model', 'chat')",
            "('response_format', None)",
        ):
            self.assertIn(expected, told)
        self.assertIn("('seed', 7)", replica.call("predict", {"prompt": "x", "seed": 7}).text[0])
        seeds = {re.search(r"'seed', (\d+)", replica.call("predict", {"prompt": "x"}).text[0])[1] for _ in range(3)}
        self.assertEqual(len(seeds), 3)
        self.assertEqual(replica.call("predict", self.sample("chat")).status, 200)

    def test_openais_clients_get_its_form_at_once_or_as_it_comes(self):
        replica = self.model("chat", CHAT)
        body = {"model": "chat", "messages": [{"role": "user", "content": "good day"}], "temperature": 0, "user": "me"}
        answer = replica.call("run", body)
        self.assertEqual(answer.value["choices"][0]["message"], {"role": "assistant", "content": "GOOD DAY"})
        self.assertIn("('temperature', 0.0)", answer.text[0])
        parts = replica.call("run", {**body, "stream": True}).value
        self.assertEqual(
            parts,
            [
                'data: {"id": "1", "choices": [{"delta": {"content": "good"}, "finish_reason": null}]}\n\n',
                'data: {"id": "1", "choices": [{"delta": {"content": "day"}, "finish_reason": null}]}\n\n',
                'data: {"id": "1", "choices": [{"delta": {}, "finish_reason": "stop"}]}\n\n',
                "data: [DONE]\n\n",
            ],
        )

    def test_a_stream_says_what_it_took_to_who_asks(self):
        replica = self.model("chat", CHAT)
        for said, words, ends in (("good day", 2, "stop"), ("endless words", 2, "length")):
            body = {"messages": [{"role": "user", "content": said}], "stream": True}
            *parts, last, done = replica.call("run", {**body, "stream_options": {"include_usage": True}}).value
            self.assertEqual(done, "data: [DONE]\n\n")
            parts = [json.loads(part[len("data: ") :]) for part in parts]
            self.assertEqual({part["usage"] for part in parts}, {None})
            self.assertEqual(parts[-1]["choices"][0]["finish_reason"], ends)
            # The token by which the model stops is none of the answer.
            usage = {"prompt_tokens": 5, "completion_tokens": words, "total_tokens": 5 + words}
            self.assertEqual(json.loads(last[len("data: ") :]), {"id": "1", "choices": [], "usage": usage})
            for options in ({"include_usage": False}, {}, None):
                self.assertNotIn("usage", "".join(replica.call("run", {**body, "stream_options": options}).value))
        for options in ("yes", {"include_usage": "yes"}):
            refused = replica.call("run", {**body, "stream_options": options})
            self.assertEqual(refused.status, 422)
            self.assertIn("`stream_options` must be", refused.value["error"]["message"])

    def test_what_openais_clients_send_is_understood(self):
        replica = self.model("chat", CHAT)
        parts = [{"type": "text", "text": "good "}, {"type": "text", "text": "day"}]
        messages = [{"role": "developer", "content": "x"}, {"role": "user", "content": parts}]
        schema = {"type": "object"}
        form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
        more = {"presence_penalty": 1, "n": 1, "tools": [], "max_completion_tokens": 9, "logprobs": False}
        answer = replica.call("run", {"model": "mine", "messages": messages, "response_format": form, **more})
        self.assertEqual(answer.value["choices"][0]["message"]["content"], "GOOD DAY")
        for expected in (
            "('model', 'mine')",
            "('presence_penalty', 1.0)",
            "('max_tokens', 9)",
            "('response_format', {'type': 'json_object', 'schema': {'type': 'object'}})",
        ):
            self.assertIn(expected, answer.text[0])

    def test_a_file_of_the_machine_is_taken_as_it_is(self):
        secrets = {"CHAT_MODEL": __file__, "CHAT_CONTEXT": "512"}
        told = self.model("chat", CHAT, secrets=secrets).call("predict", {"prompt": "x"}).text[0]
        self.assertIn("('path', {!r})".format(__file__), told)
        self.assertIn("('n_ctx', 512)", told)

    def test_what_cannot_be_worked_on_is_named(self):
        replica = self.model("chat", CHAT)
        user = [{"role": "user", "content": "x"}]
        for body, said in (
            ({}, "or a `prompt`"),
            ({"messages": []}, "or a `prompt`"),
            ({"messages": [{"role": "god", "content": "x"}]}, "`messages[0]` must have a `role`"),
            ({"messages": [*user, {"role": "user", "content": 1}]}, "`messages[1]` must have a text"),
            ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "must have texts as the parts"),
            ({"messages": user, "tools": [{"type": "function"}]}, "no `tools`"),
            ({"messages": user, "n": 2}, "`n` must be 1"),
            ({"messages": user, "response_format": {"type": "json_schema"}}, "`json_schema` with a `schema`"),
            ({"messages": user, "max_tokens": 0}, "`max_tokens` must be a number from 1 to 4096"),
            ({"messages": user, "temperature": "hot"}, "`temperature` must be a number"),
            ({"messages": user, "stop": [1]}, "`stop` must be a text"),
            ({"prompt": "too much"}, "exceed context window of 8192"),
        ):
            self.refused(replica, body, said)
            if "prompt" not in body:
                self.refused(replica, body, said, "run")
        stream = replica.call("run", {"messages": [{"role": "user", "content": "too much"}], "stream": True})
        self.assertEqual(stream.status, 422)
        self.assertEqual(stream.value["error"]["type"], "invalid_request_error")


class Dreambooth(ModelTest):
    def test_pictures_come_as_a_list_of_png(self):
        replica = self.model("dreambooth", DREAMBOOTH)
        answer = replica.call("predict", {"prompt": "a bicycle", "num_images_per_prompt": 2, "webhook_endpoint": "https://x"})
        self.assertEqual(answer.value, [base64_of(b"\x89PNGPNG")] * 2)
        loads, paints = answer.text
        self.assertTrue(loads.startswith("loads stabilityai/stable-diffusion-2-1 "), loads)
        for expected in ("('token', None)", "('torch_dtype', 'float32')", "('use_safetensors', True)"):
            self.assertIn(expected, loads)
        self.assertEqual(
            paints,
            "paints 1 [('guidance_scale', 7.5), ('height', 512), ('negative_prompt', ''), ('num_images_per_prompt', 2), "
            "('num_inference_steps', 50), ('prompt', 'a bicycle'), ('width', 512)]",
        )
        self.assertEqual(replica.call("predict", self.sample("dreambooth")).status, 200)

    def test_the_last_model_stays_loaded_and_the_token_is_the_callers_or_the_secret(self):
        replica = self.model("dreambooth", DREAMBOOTH, secrets={"hf_auth_token": "of-the-app"})
        mine = {"prompt": "x", "hf_model_path": "me/my-dog"}
        first = replica.call("predict", mine).text[0]
        self.assertIn("loads me/my-dog", first)
        self.assertIn("('token', 'of-the-app')", first)
        self.assertTrue(replica.call("predict", mine).text[0].startswith("paints"))
        self.assertIn("('token', 'mine')", replica.call("predict", {**mine, "hf_token": "mine"}).text[0])
        self.assertIn("loads other/dog", replica.call("predict", {"prompt": "x", "model_id": "other/dog"}).text[0])

    def test_what_cannot_be_worked_on_is_named_without_the_token(self):
        replica = self.model("dreambooth", DREAMBOOTH)
        for body, said in (
            ({}, "as `prompt`"),
            ({"prompt": " "}, "as `prompt`"),
            ({"prompt": "x" * 4001}, "4000 characters"),
            ({"prompt": "x", "height": 500}, "`height` must be a multiple of 8, such as 496"),
            ({"prompt": "x", "width": 4096}, "`width` must be a number from 64 to 2048"),
            ({"prompt": "x", "num_images_per_prompt": 9}, "from 1 to 8"),
            ({"prompt": "x", "num_inference_steps": "many"}, "from 1 to 500"),
            ({"prompt": "x", "seed": -1}, "`seed`"),
            ({"prompt": "x", "seed": float("inf")}, "`seed`"),
            ({"prompt": "x", "hf_model_path": "/etc"}, "`owner/model`"),
            ({"prompt": "x", "hf_model_path": "../etc"}, "`owner/model`"),
            ({"prompt": "x", "hf_model_path": 7}, "`owner/model`"),
            ({"prompt": "x", "hf_model_path": "me/absent", "hf_token": "hf_secret"}, "the token … does not open it"),
            ({"prompt": "x", "hf_model_path": "me/absent", "hf_token": "hf_secret"}, "(the hub knows no … and"),
            ({"prompt": "x", "hf_model_path": "me/absent", "hf_token": "hf_secret"}, "more.....…)"),
            ({"prompt": "x", "hf_model_path": "me/absent", "hf_token": 7}, "`hf_token` must be a text"),
        ):
            self.refused(replica, body, said)


if __name__ == "__main__":
    unittest.main()
