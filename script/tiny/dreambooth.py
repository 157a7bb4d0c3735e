"""A Stable Diffusion of a few kilobytes with random weights: it paints noise, and shows that all parts fit.

Usage: python dreambooth.py FOLDER, in an environment that has diffusers, transformers and torch.
"""

import json
import pathlib
import sys

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

folder = pathlib.Path(sys.argv[1])
words = folder / "words"
words.mkdir(parents=True, exist_ok=True)
torch.manual_seed(1)

letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
entries = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
(words / "vocab.json").write_text(json.dumps({entry: index for index, entry in enumerate(entries)}))
(words / "merges.txt").write_text("#version: 0.2\n")
tokenizer = CLIPTokenizer(str(words / "vocab.json"), str(words / "merges.txt"), model_max_length=77)

text_encoder = CLIPTextModel(
    CLIPTextConfig(
        vocab_size=len(entries),
        hidden_size=32,
        intermediate_size=37,
        num_hidden_layers=1,
        num_attention_heads=4,
        max_position_embeddings=77,
        bos_token_id=len(entries) - 2,
        eos_token_id=len(entries) - 1,
        pad_token_id=len(entries) - 1,
    )
)
unet = UNet2DConditionModel(
    sample_size=8,
    in_channels=4,
    out_channels=4,
    layers_per_block=1,
    block_out_channels=(32, 64),
    down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
    up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    cross_attention_dim=32,
)
# Four blocks, as the real one has: a picture is eight times as wide as what is painted on.
vae = AutoencoderKL(
    block_out_channels=(8, 8, 8, 8),
    norm_num_groups=8,
    in_channels=3,
    out_channels=3,
    down_block_types=("DownEncoderBlock2D",) * 4,
    up_block_types=("UpDecoderBlock2D",) * 4,
    latent_channels=4,
)
StableDiffusionPipeline(
    vae=vae,
    text_encoder=text_encoder,
    tokenizer=tokenizer,
    unet=unet,
    scheduler=DDIMScheduler(clip_sample=False, steps_offset=1),
    safety_checker=None,
    feature_extractor=None,
    requires_safety_checker=False,
).save_pretrained(str(folder), safe_serialization=True)
print(folder)
