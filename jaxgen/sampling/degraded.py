"""Makes what a model reads from clean pictures, by the corruptions that made it in training."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import numpy as np

from jaxgen.arrays import to_uint8
from jaxgen.config import image_shape
from jaxgen.errors import UserError
from jaxgen.sampling.inputs import Inputs, read_inputs
from jaxgen.sampling.restore import TrainedModel
from jaxgen.sampling.slots import Files, Slot


def degraded_pictures(trained: TrainedModel, asked: Files, num: int, seed: int) -> tuple[TrainedModel, Inputs]:
    """Returns a model whose conditions are made from a user's clean pictures, and the pictures with what they became.

    What is random in a corruption depends on the seed and the image's number, as where the images are held-out ones.

    Args:
      trained: a model that reads what `config.data.corruptions` make of images.
      asked: `{entry: files}`, which names the clean pictures alone, as "image" or "".
      num: how many images are drawn.
      seed: the seed that they are drawn with.

    Raises:
      UserError: the model reads nothing that is made of images, another entry is given too, or a file cannot be read.
    """
    generator = trained.generator
    made = [name for name in generator.method.conditions if name in generator.held_out.made]
    if not made:
        raise UserError(
            "--degrade was given, but this model reads nothing that its data make of images "
            "(config.data.corruptions); leave it out."
        )
    if len(asked) > 1:
        others = " and ".join(sorted(name for name in asked if name not in ("", "image")) or ["--input"])
        raise UserError(f"--degrade makes what the model reads of a picture from --image alone: leave {others} out.")
    slot = Slot("image", image_shape(generator.config))
    inputs = read_inputs(asked, dict.fromkeys(asked, slot), num)
    images = inputs.rows["image"][np.arange(num) % len(inputs.rows["image"])]
    shown = generator.held_out.corrupted(images, seed)
    rows = {"image": images, **{name: _levels(shown[name]) for name in made}}
    changed = generator.changed(generator.method, {"image": images})
    return dataclasses.replace(trained, generator=changed), dataclasses.replace(inputs, rows=rows)


def _levels(rows: np.ndarray) -> np.ndarray:
    """Returns pictures in [-1, 1] as uint8; masks stay as they are."""
    return np.asarray(to_uint8(jnp.asarray(rows))) if rows.dtype.kind == "f" else rows
