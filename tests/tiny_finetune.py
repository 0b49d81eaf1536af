"""A fine-tuning run of the tiny pipeline of `tiny_pipeline`, on a few captioned pictures."""

from __future__ import annotations

import pathlib

import numpy as np
import tiny
from PIL import Image

from jaxgen.config import files

CAPTIONS = ("a red cat", "a dog", "the red dog")


def write_pictures(folder: pathlib.Path, captions: bool = True) -> None:
    """Writes 16x16 pictures, a few of which the source keeps for its test split, with a caption beside each."""
    folder.mkdir(parents=True)
    chance = np.random.default_rng(0)
    for i in range(24):
        colour = np.array([(220, 30, 30), (30, 60, 200), (240, 200, 40)][i % 3])
        picture = np.clip(colour + chance.normal(0, 10, (16, 16, 3)), 0, 255).astype(np.uint8)
        Image.fromarray(picture).save(folder / f"{i}.png")
        if captions:
            (folder / f"{i}.txt").write_text(CAPTIONS[i % 3])


def finetune_config(folder: pathlib.Path, pictures: pathlib.Path):
    config, _ = files.load_config(tiny.ROOT / "configs" / "stable_diffusion_finetune.py")
    config.init_from.pretrained = str(folder)
    config.data.update(source=f"folder:{pictures}", resolution=16)
    config.optimizer.update(learning_rate=2e-3, warmup_images=0)
    config.train.update(
        batch_size=4, total_images=80, log_every_images=4, checkpoint_every_images=0, sample_every_images=0,
        ema_decay=0.5, tensorboard=False,
    )  # fmt: skip
    config.sampler.update(steps=3)
    config.evaluate.update(num=2, batch_size=2, at_end=False)
    return config
