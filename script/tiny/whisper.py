"""A Whisper of a few kilobytes with random weights, in CTranslate2's form: it hears nothing, and shows that all parts fit.

Usage: python whisper.py FOLDER, in an environment that has faster-whisper.
"""

import json
import pathlib
import sys

import numpy
from ctranslate2.specs import whisper_spec
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

folder = pathlib.Path(sys.argv[1])
LAYERS, HEADS, WIDTH, MELS, FRAMES, POSITIONS = 1, 2, 16, 80, 1500, 448
chance = numpy.random.default_rng(1)

LANGUAGES = ["en", "zh", "de", "es", "ru", "ko", "fr", "ja", "pt", "tr"]
SPECIAL = ["<|endoftext|>", "<|startoftranscript|>", *(f"<|{name}|>" for name in LANGUAGES)]
SPECIAL += ["<|translate|>", "<|transcribe|>", "<|startoflm|>", "<|startofprev|>", "<|nospeech|>", "<|notimestamps|>"]
SPECIAL += [f"<|{index * 0.02:.2f}|>" for index in range(1501)]
bytes_alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
words = {token: index for index, token in enumerate(bytes_alphabet)}
tokenizer = Tokenizer(models.BPE(vocab=words, merges=[]))
tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
tokenizer.decoder = decoders.ByteLevel()
tokenizer.add_special_tokens(SPECIAL)
vocabulary = [tokenizer.id_to_token(index) for index in range(tokenizer.get_vocab_size())]


def weights(*shape):
    return chance.normal(0, 0.05, shape).astype("float32")


def linear(spec, rows, columns):
    spec.weight = weights(rows, columns)
    spec.bias = numpy.zeros(rows, "float32")


def norm(spec):
    spec.gamma = numpy.ones(WIDTH, "float32")
    spec.beta = numpy.zeros(WIDTH, "float32")


def attention(spec, is_self):
    norm(spec.layer_norm)
    if is_self:
        linear(spec.linear[0], 3 * WIDTH, WIDTH)
        linear(spec.linear[1], WIDTH, WIDTH)
    else:
        linear(spec.linear[0], WIDTH, WIDTH)
        linear(spec.linear[1], 2 * WIDTH, WIDTH)
        linear(spec.linear[2], WIDTH, WIDTH)


def layer(spec, decodes):
    attention(spec.self_attention, True)
    if decodes:
        attention(spec.attention, False)
    norm(spec.ffn.layer_norm)
    linear(spec.ffn.linear_0, 4 * WIDTH, WIDTH)
    linear(spec.ffn.linear_1, WIDTH, 4 * WIDTH)


spec = whisper_spec.WhisperSpec(LAYERS, HEADS, LAYERS, HEADS)
encoder, decoder = spec.encoder, spec.decoder
for convolution, channels in ((encoder.conv1, MELS), (encoder.conv2, WIDTH)):
    convolution.weight = weights(WIDTH, channels, 3)
    convolution.bias = numpy.zeros(WIDTH, "float32")
encoder.position_encodings.encodings = weights(FRAMES, WIDTH)
norm(encoder.layer_norm)
for one in encoder.layer:
    layer(one, False)
decoder.embeddings.weight = weights(len(vocabulary), WIDTH)
decoder.position_encodings.encodings = weights(POSITIONS, WIDTH)
decoder.scale_embeddings = False
norm(decoder.layer_norm)
decoder.projection.weight = weights(len(vocabulary), WIDTH)
for one in decoder.layer:
    layer(one, True)

at = vocabulary.index
spec.register_vocabulary(vocabulary)
spec.config.suppress_ids = []
spec.config.suppress_ids_begin = [at("<|endoftext|>")]
spec.config.alignment_heads = [[0, 0]]
spec.config.lang_ids = [at(f"<|{name}|>") for name in LANGUAGES]
spec.validate()
spec.optimize()
folder.mkdir(parents=True, exist_ok=True)
spec.save(str(folder))
tokenizer.save(str(folder / "tokenizer.json"))
(folder / "preprocessor_config.json").write_text(json.dumps({"feature_size": MELS}))
print(folder)
