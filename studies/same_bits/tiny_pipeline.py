"""Writes a tiny Stable Diffusion with random weights, the texts for it and the noise that it starts from."""

from __future__ import annotations

import json
import pathlib

import numpy as np

LENGTH = 12  # tokens of a text of the tiny pipeline
PROMPTS, NEGATIVE_PROMPT = ("a red cat", "dog & CAT!"), "red dog"


def write_noise(made: pathlib.Path, seed: int) -> None:
    """Writes the noise that the pipeline starts from: standard normals of a seed, in diffusers' layout."""
    noise = np.random.default_rng(seed).standard_normal((len(PROMPTS), 4, 8, 8)).astype(np.float32)
    np.save(made / f"noise_{seed}.npy", noise)


def write_pipeline(made: pathlib.Path) -> None:
    """Writes a tiny Stable Diffusion by diffusers and transformers, as in tests/parity/test_stable_diffusion.py."""
    import diffusers
    import torch
    import transformers

    vocabulary = write_tokenizer(made / "tokenizer")
    torch.manual_seed(0)
    text = transformers.CLIPTextConfig(
        vocab_size=vocabulary,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=LENGTH,
        bos_token_id=vocabulary - 2,
        eos_token_id=vocabulary - 1,
        pad_token_id=vocabulary - 1,
    )
    unet = diffusers.UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(16, 32),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        norm_num_groups=8,
        cross_attention_dim=16,
        attention_head_dim=4,
    )
    vae = diffusers.AutoencoderKL(
        block_out_channels=(8, 16),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=4,
        scaling_factor=0.6,
        sample_size=16,
    )
    scheduler = diffusers.PNDMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        set_alpha_to_one=False,
        steps_offset=1,
        skip_prk_steps=True,
    )
    encoder = transformers.CLIPTextModel(text)
    chance = torch.Generator().manual_seed(0)
    with torch.no_grad():  # weights so large that no part is close to the identity, or to nothing
        for weight in (w for network in (vae, encoder, unet) for w in network.parameters()):
            weight += torch.randn(weight.shape, generator=chance) * (0.2 if weight.ndim == 1 else 0.05)
    diffusers.StableDiffusionPipeline(
        vae=vae.eval(),
        text_encoder=encoder.eval(),
        tokenizer=transformers.CLIPTokenizer.from_pretrained(made / "tokenizer"),
        unet=unet.eval(),
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(made / "pipeline", safe_serialization=True)


def write_tokenizer(folder: pathlib.Path) -> int:
    """Writes CLIP's files with printable bytes and a few merges; returns the number of ids."""
    letters, merges = [chr(byte) for byte in range(ord("!"), ord("~") + 1)], ["r e", "re d</w>", "c a", "ca t</w>"]
    entries = [*letters, *(f"{letter}</w>" for letter in letters), *(merge.replace(" ", "") for merge in merges)]
    entries += ["<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({entry: i for i, entry in enumerate(entries)}))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n")
    settings = {"model_max_length": LENGTH, "pad_token": "<|endoftext|>", "tokenizer_class": "CLIPTokenizer"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return len(entries)
