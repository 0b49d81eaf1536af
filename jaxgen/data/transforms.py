"""Batches on the device: uint8 to float and back, and geometric augmentation. Pure JAX, to be called under jit."""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from jaxgen.arrays import Batch
from jaxgen.errors import UserError


def to_float(batch: Mapping[str, jax.Array]) -> Batch:
    """Every uint8 array, in [0, 255], as float32 in [-1, 1] by x / 127.5 - 1; all others unchanged."""
    return {key: _to_float(value) if value.dtype == jnp.uint8 else value for key, value in batch.items()}


def _to_float(image: jax.Array) -> jax.Array:
    return image.astype(jnp.float32) / 127.5 - 1


def to_uint8(images: jax.Array) -> jax.Array:
    """Float images in [-1, 1], clipped there, to the nearest of 256 levels: the inverse of `to_float`."""
    levels = (jnp.clip(images.astype(jnp.float32), -1, 1) + 1) * 127.5
    return jnp.round(levels).astype(jnp.uint8)


def augment(
    key: jax.Array,
    batch: Mapping[str, jax.Array],
    flip: bool,
    crop: int,
    index: jax.Array | None = None,
) -> Batch:
    """Random flips and crops, the same for all that belongs to one image.

    Args:
      key: a random key; that of an image is folded from it and the image's number in the batch.
      batch: images [B, H, W, C] and integer masks [B, H, W] are moved, everything else is left alone. Row i of each
        gets transform i, so what belongs together stays together.
      flip: mirror each image left to right with probability one half.
      crop: shift each image by up to this many pixels each way, the border filled by reflection; less than the
        height and width. 0 leaves them where they are.
      index: int32 [B], the images' numbers; their places in the batch, by default.

    Returns the batch, every shape and dtype unchanged. An image's result depends on the key, its number and itself.

    Raises UserError if entries differ in size while `crop` is not 0, or if `crop` reaches the size.
    """
    images = {name: value for name, value in batch.items() if value.ndim == 4 or _is_mask(value)}
    if not images or not (flip or crop):
        return dict(batch)
    sizes = {value.shape[1:3] for value in images.values()}
    if crop and (len(sizes) > 1 or crop < 0 or crop >= min(min(sizes))):
        raise UserError(
            f"A random crop by {crop} pixels needs entries of one size that is larger, but the batch has "
            + ", ".join(f"{name} {value.shape[1]}x{value.shape[2]}" for name, value in images.items())
            + "; lower config.data.crop."
        )
    if index is None:
        index = jnp.arange(len(next(iter(images.values()))))
    keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(index)

    def moved(key, values):
        flip_key, crop_key = jax.random.split(key)
        mirrored = jax.random.bernoulli(flip_key)
        shift = jax.random.randint(crop_key, (2,), 0, 2 * crop + 1)  # 0 .. 2 crop of the padded image
        return {name: _move(value, mirrored if flip else None, shift, crop) for name, value in values.items()}

    return {**batch, **jax.vmap(moved)(keys, images)}


def _is_mask(value: jax.Array) -> bool:
    return value.ndim == 3 and jnp.issubdtype(value.dtype, jnp.integer)


def _move(image: jax.Array, mirrored: jax.Array | None, shift: jax.Array, crop: int) -> jax.Array:
    """One image [H, W, ...]."""
    if mirrored is not None:
        image = jnp.where(mirrored, image[:, ::-1], image)
    if crop:
        border = [(crop, crop), (crop, crop)] + [(0, 0)] * (image.ndim - 2)
        start = (shift[0], shift[1]) + (0,) * (image.ndim - 2)
        image = jax.lax.dynamic_slice(jnp.pad(image, border, mode="reflect"), start, image.shape)
    return image


def prepare(batch: Batch, key: jax.Array, flip: bool = False, crop: int = 0) -> Batch:
    """A host batch as losses see it: augmented, uint8 images as float32 in [-1, 1]."""
    if flip or crop:
        batch = augment(key, batch, flip, crop)
    return to_float(batch)
