"""What the tests of edits by a Stable Diffusion folder beside diffusers share: a folder of inputs, and a quiet peer."""

from __future__ import annotations

import pathlib

import numpy as np
import tiny_pipeline
from PIL import Image

PROMPTS, NEGATIVE, STEPS, SCALE = ["a red cat", "dog & CAT!"], "red dog", 10, 5.0


def write_inputs(folder: pathlib.Path, known: int) -> pathlib.Path:
    """Writes a pipeline, two pictures, a mask that keeps so many columns of 16, and a noise; returns the folder."""
    tiny_pipeline.write(folder / "pipeline")
    chance = np.random.default_rng(3)
    (folder / "photos").mkdir()
    for name in "ab":
        Image.fromarray(chance.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(folder / "photos" / f"{name}.png")
    Image.fromarray(np.repeat([[0] * known + [255] * (16 - known)], 16, 0).astype(np.uint8)).save(folder / "mask.png")
    np.save(folder / "noise.npy", chance.standard_normal((2, 4, 8, 8)).astype(np.float32))
    return folder


def photos(folder: pathlib.Path) -> list[pathlib.Path]:
    """The files of the two pictures."""
    return [folder / "photos" / f"{name}.png" for name in "ab"]


def without_chance(peer, folder: pathlib.Path, monkeypatch) -> None:
    """Makes a module of diffusers take the posterior's mean, in place of a sample from it, and the folder's noise."""
    import torch

    retrieve, noise = peer.retrieve_latents, torch.from_numpy(np.load(folder / "noise.npy"))
    monkeypatch.setattr(peer, "retrieve_latents", lambda found, generator: retrieve(found, sample_mode="argmax"))
    monkeypatch.setattr(peer, "randn_tensor", lambda *_, **__: noise)


def quiet(pipe):
    """The pipeline with the solver that both sides use, and without a progress bar."""
    import diffusers

    pipe.scheduler = diffusers.DDIMScheduler.from_config(pipe.scheduler.config, clip_sample=False)
    pipe.set_progress_bar_config(disable=True)
    return pipe
