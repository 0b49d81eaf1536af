"""A text-to-image pipeline small enough to test with, as a folder of diffusers: random weights, a vocabulary of bytes.

Neither torch nor diffusers is needed.
"""

from __future__ import annotations

import json
import pathlib

import jax
import numpy as np

from jaxgen.diffusion import schedules
from jaxgen.diffusion.prediction_types import Epsilon, PredictionType
from jaxgen.interop.diffusers_condition_unet import unet_shapes
from jaxgen.interop.diffusers_pipeline import Pipeline, new_pipeline, save_pipeline
from jaxgen.interop.diffusers_scheduler import Noise
from jaxgen.networks.autoencoder_kl import AutoencoderKL
from jaxgen.networks.pretrained.clip import TextTower
from jaxgen.networks.unet import UNet

EPSILON = Epsilon()
BYTES = [*range(ord("!"), ord("~") + 1)]  # printable ASCII stands for itself in CLIP's vocabulary
MERGES = ["r e", "re d</w>", "c a", "ca t</w>", "d o", "do g</w>"]
LENGTH = 12


def write_tokenizer(folder: pathlib.Path) -> int:
    """vocab.json and merges.txt with single bytes, `MERGES`, start and end; returns how many ids there are."""
    letters = [chr(byte) for byte in BYTES]
    entries = [*letters, *(f"{letter}</w>" for letter in letters), *(merge.replace(" ", "") for merge in MERGES)]
    entries += ["<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({entry: i for i, entry in enumerate(entries)}))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *MERGES]) + "\n")
    settings = {"model_max_length": LENGTH, "pad_token": "<|endoftext|>", "tokenizer_class": "CLIPTokenizer"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return len(entries)


def random_params(shapes, seed: int = 0):
    """Params of these shapes, none of which starts at zero or one."""
    chance = np.random.default_rng(seed)

    def draw(path, leaf):
        centre = 1.0 if path[-1].key == "scale" else 0.0
        size = 0.2 if leaf.ndim == 1 else (leaf.size / leaf.shape[-1]) ** -0.5
        return (centre + size * chance.standard_normal(leaf.shape)).astype(np.float32)

    return jax.tree_util.tree_map_with_path(draw, shapes)


def write(folder: pathlib.Path, prediction_type: PredictionType = EPSILON) -> tuple[Pipeline, dict]:
    """Writes the folder: images of 16x16 pixels, latents of 8x8."""
    tokenizer = folder.with_name(f"{folder.name}_tokenizer")
    vocabulary = write_tokenizer(tokenizer)
    text = TextTower(vocabulary, LENGTH, width=16, depth=2, heads=2, mlp_features=32, end=vocabulary - 1)
    unet = UNet(
        out_channels=4,
        channels=16,
        channel_multipliers=(1, 2),
        blocks=1,
        attention_levels=(0,),
        heads=2,
        context_dim=16,
        norm_groups=8,
    )
    autoencoder = AutoencoderKL(channels=8, channel_multipliers=(1, 2), blocks=1, norm_groups=4)
    noise = Noise(schedules.ScaledLinear(), prediction_type)
    pipeline = new_pipeline(unet, autoencoder, text, noise, 0.5, tokenizer, (8, 8))
    images = jax.ShapeDtypeStruct((1, 16, 16, 3), np.float32)
    tokens = jax.ShapeDtypeStruct((1, LENGTH), np.int32)
    shapes = {
        "denoiser": unet_shapes(unet, 4),
        "autoencoder": jax.eval_shape(autoencoder.init, jax.random.key(0), images)["params"],
        "text": jax.eval_shape(text.init, jax.random.key(0), tokens)["params"],
    }
    params = random_params(shapes)
    save_pipeline(folder, pipeline, params)
    return pipeline, params
