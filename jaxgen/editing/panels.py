"""Makes pictures of everything in this room for one model, each `[frames, B, H, W, C]`."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Float, Key

from jaxgen.arrays import Array
from jaxgen.editing.branching import Branching, branching
from jaxgen.editing.interpolation import interpolate
from jaxgen.editing.inversion import reconstruct, there_and_back
from jaxgen.editing.model import DiffusionModel
from jaxgen.editing.sdedit import sdedit

CAPTIONS = {
    "inversion": "An image walked to its latent by DDIM inversion and drawn again from it: first and last agree.",
    "interpolation": "Along the arc between two starting noises, DDIM without noise.",
    "branching": "One trajectory down to the time of the frame, from which branches draw their own noise: four of each "
    "of the first two images. Early partings change what is drawn, late ones details.",
    "sdedit": "A coarse guide (first frame), noised to a growing time and denoised from there.",
    "masked_edit": "The right half is drawn again, the left one held: the image, then two edits.",
}


def editing_panels(
    model: DiffusionModel,
    keys: Key[Array, "B"],
    images: Float[Array, "B H W C"],
    steps: int = 50,
    frames: int = 8,
    branch_times: tuple[float, ...] = (1.0, 0.7, 0.4, 0.1),
    strengths: tuple[float, ...] = (0.25, 0.5, 0.75),
    parted: Branching | None = None,
    guide: Float[Array, "B H W C"] | None = None,
) -> dict[str, Float[Array, "frames N H W C"]]:
    """Returns `{name: [frames, B, H, W, C]}` for a report.

    Args:
      model: its sampler draws the branches and edits; a deterministic one shows no branching.
      keys: `[B]` random keys, one for each image.
      images: `[B, H, W, C]` real images in [-1, 1], or what the model diffuses in their place.
      steps: the number of DDIM's steps in inversion and interpolation.
      frames: the number of frames of interpolation, and of each half of inversion.
      branch_times: the times at which trajectories part; not used where `parted` is given.
      strengths: the strengths of SDEdit.
      parted: branches that `draw_branches` has already drawn.
      guide: `[B, H, W, C]` what SDEdit begins with; by default `coarse` images.
    """
    if parted is None:
        parted = draw_branches(model, keys, images.shape[1:], branch_times)
    return {
        "inversion": _inversion(model, images, steps, frames),
        "interpolation": _interpolation(model, keys, images.shape[1:], steps, frames),
        "branching": _first_two(parted.images),
        "sdedit": _sdedit(model, keys, coarse(images) if guide is None else guide, strengths),
        "masked_edit": _masked_edit(model, keys, images),
    }


def draw_branches(
    model: DiffusionModel, keys: Key[Array, "B"], shape: tuple[int, ...], times: tuple[float, ...]
) -> Branching:
    """Draws four branches of one image of `shape` for each key, at each of `times`; see `branching`."""
    return branching(model, model.start(keys, shape), keys, times, branches=4)


def coarse(images: Float[Array, "B H W C"]) -> Float[Array, "B H W C"]:
    """Returns the images with about eight cells a side, which stand for a stroke drawing."""
    count, height, width, channels = images.shape
    factor = max(2, min(height, width) // 8)
    small = jax.image.resize(images, (count, height // factor, width // factor, channels), "linear")
    return jax.image.resize(small, images.shape, "nearest")


def right_half(images: Float[Array, "B H W C"]) -> Float[Array, "1 1 W 1"]:
    """Returns a `[1, 1, W, 1]` mask, which is 1 on the right half of images."""
    width = images.shape[2]
    return jnp.asarray(jnp.arange(width) >= width // 2, images.dtype)[None, None, :, None]


def _inversion(model: DiffusionModel, images: jax.Array, steps: int, frames: int) -> jax.Array:
    return there_and_back(model, images, steps, min(frames, steps))


def _interpolation(
    model: DiffusionModel, keys: Key[Array, "B"], shape: tuple[int, ...], steps: int, frames: int
) -> jax.Array:
    start = model.start(keys, shape)
    return interpolate(lambda x: reconstruct(model, x, steps), start, jnp.roll(start, -1, axis=0), frames)


def _first_two(drawn: jax.Array) -> jax.Array:
    """Turns `[T, branches, B, ...]` into `[T, 2 * branches, ...]`, an image's branches next to each other."""
    shown = jnp.moveaxis(drawn[:, :, :2], 2, 1)
    return shown.reshape(len(shown), -1, *shown.shape[3:])


def _sdedit(model: DiffusionModel, keys: Key[Array, "B"], guide: jax.Array, strengths: tuple[float, ...]) -> jax.Array:
    return jnp.stack([guide, *(sdedit(model, guide, keys, s) for s in strengths)])


def _masked_edit(model: DiffusionModel, keys: Key[Array, "B"], images: jax.Array) -> jax.Array:
    def draw(number: jax.Array) -> jax.Array:
        own = jax.vmap(lambda key: jax.random.fold_in(key, number))(keys)
        return sdedit(model, images, own, 1.0, right_half(images))

    return jnp.concatenate([images[None], jax.lax.map(draw, jnp.arange(2))])
