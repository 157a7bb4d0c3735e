"""A llama of a few kilobytes with random weights, as a GGUF file: it says letters, and shows that all parts fit.

Usage: python chat.py FILE, in an environment that has gguf and numpy.
"""

import sys

import gguf
import numpy

WIDTH, HEADS, FORWARD, LAYERS, CONTEXT = 32, 2, 64, 1, 512
chance = numpy.random.default_rng(1)
letters = "\u2581abcdefghijklmnopqrstuvwxyz"
tokens = [b"<unk>", b"<s>", b"</s>", *(f"<0x{byte:02X}>".encode() for byte in range(256)), *map(str.encode, letters)]
kinds = [gguf.TokenType.UNKNOWN, gguf.TokenType.CONTROL, gguf.TokenType.CONTROL]
kinds += [gguf.TokenType.BYTE] * 256 + [gguf.TokenType.NORMAL] * len(letters)


def weights(*shape):
    return chance.normal(0, 0.05, shape).astype("float32")


# What is the same in each state makes letters likely and the rest unlikely: bytes of chance are no text, of which a
# stream could be made.
states, likely = weights(len(tokens), WIDTH), weights(len(tokens), WIDTH)
states[:, 0] = 1
likely[:, 0] = -2
likely[-len(letters) :, 0] = 2

file = gguf.GGUFWriter(sys.argv[1], "llama")
file.add_name("tiny")
file.add_context_length(CONTEXT)
file.add_embedding_length(WIDTH)
file.add_block_count(LAYERS)
file.add_feed_forward_length(FORWARD)
file.add_head_count(HEADS)
file.add_head_count_kv(HEADS)
file.add_layer_norm_rms_eps(1e-5)
file.add_rope_dimension_count(WIDTH // HEADS)
file.add_vocab_size(len(tokens))
file.add_tokenizer_model("llama")
file.add_token_list(tokens)
file.add_token_scores([0.0] * len(tokens))
file.add_token_types(kinds)
file.add_bos_token_id(1)
file.add_eos_token_id(2)
file.add_unk_token_id(0)
file.add_chat_template("{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}assistant:")
file.add_tensor("token_embd.weight", states)
file.add_tensor("output_norm.weight", numpy.ones(WIDTH, "float32"))
file.add_tensor("output.weight", likely)
for block in range(LAYERS):
    for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
        file.add_tensor(f"blk.{block}.{name}.weight", weights(WIDTH, WIDTH))
    for name in ("ffn_gate", "ffn_up"):
        file.add_tensor(f"blk.{block}.{name}.weight", weights(FORWARD, WIDTH))
    file.add_tensor(f"blk.{block}.ffn_down.weight", weights(WIDTH, FORWARD))
    for name in ("attn_norm", "ffn_norm"):
        file.add_tensor(f"blk.{block}.{name}.weight", numpy.ones(WIDTH, "float32"))
file.write_header_to_file()
file.write_kv_data_to_file()
file.write_tensors_to_file()
file.close()
print(sys.argv[1])
