"""Tiny runs, one for each door of the code: what their batches gain, what they are built on, what a user gives them."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable

import numpy as np
import running
import tiny_finetune
import tiny_pipeline
from ml_collections import ConfigDict
from PIL import Image
from tiny_methods import ddpm_config, tiny_config

from jaxgen.config import section
from jaxgen.data.sources.caption_shapes import PHRASE_TOKENIZER

IMAGES = 64  # of a whole run: eight steps


@dataclasses.dataclass(frozen=True)
class Door:
    """One kind of run.

    Attributes:
      config: from a folder, in which it makes what the run is built on, to the run's config.
      words: how it is sampled; `{}` stands for a picture or for a folder of them, and `{here}` for the folder above.
      shape: of these pictures.
      draws: whether it gives images of what a user hands it.
    """

    config: Callable[[pathlib.Path], ConfigDict]
    words: tuple[str, ...]
    shape: tuple[int, ...] = (8, 8, 1)
    levels: int = 256
    draws: bool = True


def corruption(folder: pathlib.Path) -> ConfigDict:
    """Restores a hole that its batches gain from their images."""
    config = tiny_config("Restorer")
    config.data.corruptions.condition = section(name="hole", form="free_form")
    return config


def inputs(folder: pathlib.Path) -> ConfigDict:
    """A plain diffusion model that begins with a picture and keeps a part of it."""
    Image.fromarray(np.repeat([[0] * 3 + [255] * 5], 8, 0).astype(np.uint8)).save(folder / "mask.png")
    return ddpm_config()


def graft(folder: pathlib.Path) -> ConfigDict:
    """Low-rank changes of a trained run."""
    base = ddpm_config(middle_attention=True)
    base.train.ema_decay = 0.5
    running.run(base, folder / "base", 16)
    base.method = section(name="tuned", grafts=section(lora=section(name="low_rank", rank=1)))
    base.sampler = section()
    base.init_from.pretrained = str(folder / "base")
    return base


def pretrained(folder: pathlib.Path) -> ConfigDict:
    """The fine-tuning of a folder of diffusers."""
    tiny_pipeline.write(folder / "made")
    tiny_finetune.write_pictures(folder / "pictures")
    np.save(folder / "noise.npy", np.random.default_rng(0).normal(size=(3, 4, 8, 8)).astype(np.float32))
    return tiny_finetune.finetune_config(folder / "made", folder / "pictures")


def text(folder: pathlib.Path) -> ConfigDict:
    """A diffusion model of pixels and texts, whose text encoder learns with it."""
    config = ddpm_config(context_dim=8, attention_resolutions=(8,), out_channels=3)
    encoder = section(name="text_encoder", vocabulary=64, length=8, width=8, depth=1, heads=2)
    config.method.parts = section(text=section(name="text", network=encoder, dropout=0.2))
    config.guidance = section(name="classifier_free", scale=2.0)
    config.data.update(source="caption_shapes", channels=3, flip=False)
    return config


def games(folder: pathlib.Path) -> ConfigDict:
    """A GAN on trees that reads a picture, with a lazy turn and truncated z."""
    config = tiny_config("Plain")
    config.method = section(
        name="tiny_games:OnTrees", generator=section(name="tiny_games:Rooms", channels=3),
        discriminator=section(name="tiny_games:Scales"), loss="relativistic", r1=1.0, r1_every=3,
    )  # fmt: skip
    config.sampler = section(threshold=1.0)
    config.optimizer.eps = 1e-3  # or Adam blows rounding up where nothing is to be learnt
    config.data.update(source="shapes", split="val", eval_split="test", channels=3)
    return config


def pairs(folder: pathlib.Path) -> ConfigDict:
    """A CLIP with a captioner, whose loss compares all examples of a batch."""
    config, words = tiny_config("Plain"), PHRASE_TOKENIZER.size
    sizes = {"width": 16, "depth": 1, "heads": 2, "mlp_features": 24}
    config.method = section(
        name="clip", image=section(name="image_tower", size=8, patch=4, projection=8, **sizes),
        text=section(name="text_tower", vocabulary=words, length=16, end=1, projection=8, **sizes),
        captioner=section(name="captioner", vocabulary=words, **sizes),
        zero_shot=section(shape=section(classes=("disc", "box"), templates=("a red {}",))),
    )  # fmt: skip
    config.data.update(source="caption_shapes:phrases", channels=3)
    config.optimizer.update(name="sgd", learning_rate=1e-2)  # keys' biases have slopes of rounding: whole steps of Adam
    return config


def pix2pix(folder: pathlib.Path) -> ConfigDict:
    """A translation with everything on: dropout, noise, two scales, feature matching, mode seeking."""
    config = tiny_config("Plain")
    patches = section(name="patch_discriminator", width=2, layers=1, norm="spectral_instance", reads=("condition",))
    config.method = section(
        name="pix2pix", generator=section(name="translation_unet", width=4, downs=3, dropout_blocks=1, z_dim=2),
        discriminator=section(name="multi_scale", network=patches, scales=2), feature_matching=1.0, mode_seeking=0.1,
        l1=10.0,
    )  # fmt: skip
    config.optimizer.eps = 1e-3
    config.data.update(source="shapes", split="val", eval_split="test", resolution=16, channels=3, flip=True)
    config.data.rename.condition = "outline"
    return config


def cyclegan(folder: pathlib.Path) -> ConfigDict:
    """An unpaired translation, whose pool is full after two steps."""
    config = tiny_config("Plain")
    config.method = section(
        name="cyclegan", generator=section(name="translation_resnet", width=2, downs=1, blocks=1),
        discriminator=section(name="patch_discriminator", width=2, layers=1, norm="instance"), pool=12,
    )  # fmt: skip
    config.optimizer.update(eps=1e-3, constant_images=IMAGES // 2, decay="linear")
    config.data.update(source="shapes", split="val", eval_split="test", channels=3)
    config.data.extra.other = section(source="shapes", split="train", eval_split="test")
    config.data.extra.other.rename = section(image="style")
    return config


def layouts(folder: pathlib.Path) -> ConfigDict:
    """A SPADE with a style encoder, batch statistics, spectral vectors and two scales, on layouts of plain regions."""
    config = tiny_config("Plain")
    patches = section(name="patch_discriminator", width=4, layers=1, norm="spectral", reads=("mask",), classes=6)
    patches.padding = 2
    config.method = section(
        name="spade",
        generator=section(name="spade_generator", classes=6, z_dim=3, widths=(4, 4), middle=0, hidden=4),
        discriminator=section(name="multi_scale", network=patches, scales=2),
        encoder=section(name="style_encoder", widths=(4,)),
    )
    config.optimizer.eps = 1e-3  # or Adam blows rounding up where nothing is to be learnt
    config.data.update(source="regions", split="val", eval_split="test", channels=3)
    return config


def growing(folder: pathlib.Path) -> ConfigDict:
    """A progressive GAN of two stages: it is killed within the fade of the second, and stopped at its end."""
    config = tiny_config("Plain")
    config.method = section(
        name="progan", generator=section(name="progressive_generator", z_dim=4, widths=(4, 4)),
        discriminator=section(name="progressive_discriminator", widths=(4, 4)), images_per_stage=(24, 24),
    )  # fmt: skip
    config.optimizer.update(b1=0.0, b2=0.99, eps=1e-3)
    return config


def styles(folder: pathlib.Path) -> ConfigDict:
    """A StyleGAN2 with both lazy turns, mixed styles, and an augmentation that adapts every other step."""
    config = tiny_config("Plain")
    config.method = section(
        name="stylegan2",
        generator=section(name="style2_generator", z_dim=4, w_dim=4, depth=1, channels=4),
        discriminator=section(name="style2_discriminator", channels=4), r1=1.0, r1_every=4, path_every=4,
        augment=section(name="adaptive_augment", images=64, every=2, target=0.0, geometry=False, colour=False),
    )  # fmt: skip
    config.sampler = section(truncation=0.7)
    config.optimizer.eps = 1e-3  # or Adam blows rounding up where nothing is to be learnt
    config.optimizers.discriminator = section(learning_rate=1e-3, b1=0.0)
    return config


DOORS = {
    "corruption": Door(corruption, ("--image={}", "--degrade")),
    "inputs": Door(inputs, ("--image={}", "--mask={here}/mask.png")),
    "graft": Door(graft, ("--image={}", "--strength=0.7")),
    "pretrained": Door(
        pretrained,
        ("--image={}", "--prompt=a red cat", "--negative_prompt=a dog", "--noise={here}/noise.npy", "--strength=0.7"),
        (16, 16, 3),
    ),
    "text": Door(text, ("--image={}", "--prompt=a red circle", "--negative_prompt=a blue star"), (8, 8, 3)),
    "games": Door(games, ("--input=outline={}",)),
    "pairs": Door(pairs, ("--image={}",), (8, 8, 3), draws=False),
    "pix2pix": Door(pix2pix, ("--image={}",), (16, 16, 1)),
    "cyclegan": Door(cyclegan, ("--input={}",), (8, 8, 3)),
    "layouts": Door(layouts, ("--mask={}",), (8, 8), levels=6),
    "growing": Door(growing, (), draws=False),
    "styles": Door(styles, (), draws=False),
}


def prepared(name: str, folder: pathlib.Path) -> ConfigDict:
    """Returns a door's config, with checkpoints every other step of eight images; writes three pictures beside it."""
    door, chance = DOORS[name], np.random.default_rng(1)
    (folder / "photos").mkdir(parents=True)
    for picture in "abc":
        levels = chance.integers(0, door.levels, door.shape, dtype=np.uint8)
        Image.fromarray(levels.squeeze()).save(folder / "photos" / f"{picture}.png")
    config = door.config(folder)
    config.train.update(batch_size=8, total_images=IMAGES, checkpoint_every_images=16, log_every_images=16)
    config.train.update(keep_last=10, sample_every_images=0, tensorboard=False)
    config.optimizer.decay_images = IMAGES  # a run that stops early learns at the rates of the whole one
    config.evaluate.at_end = False
    return config
