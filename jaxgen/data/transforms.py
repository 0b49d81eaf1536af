"""Transforms batches on the device: uint8 to float, and geometric augmentation.

Pure JAX, to be called under jit.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.arrays import Batch, Entries
from jaxgen.data.corruptions import Corruption, corrupt, entries_of
from jaxgen.errors import UserError

if TYPE_CHECKING:
    from jaxtyping import Int, Key

AnyArray = TypeVar("AnyArray", jax.Array, np.ndarray)


def to_float(batch: Mapping[str, AnyArray]) -> dict[str, AnyArray]:
    """Returns the batch with every uint8 array x as float32 in [-1, 1], x / 127.5 - 1; other arrays are unchanged.

    Where an entry is read that the batch does not have, a UserError says so.
    """
    return Entries({key: _to_float(value) if value.dtype == jnp.uint8 else value for key, value in batch.items()})


def _to_float(image: AnyArray) -> AnyArray:
    return image.astype(jnp.float32) / 127.5 - 1


# Entries of which a mirrored or shifted image tells nothing: why they are refused beside `flip` and `crop`.
FIXED = {
    "camera": "a mirrored or shifted picture is one of another camera",
    "moments": "the latents of a mirrored image are others (`python -m jaxgen.sampling.latents --flip` writes both)",
}


def augment(
    key: Key[jax.Array, ""],
    batch: Mapping[str, jax.Array],
    flip: bool,
    crop: int,
    index: Int[jax.Array, " B"] | None = None,
) -> Batch:
    """Flips and crops images at random; all entries that belong to one image are transformed alike.

    Args:
      key: a random key; each image's key is folded from it and the image's number.
      batch: arrays with a leading batch axis. Pictures `[B, H, W, C]`, videos and sets of pictures `[B, F, H, W, C]`,
        and integer masks `[B, H, W]` are transformed, and all other entries are unchanged. Row i of every entry gets
        transform i.
      flip: whether to mirror each image left to right with probability one half.
      crop: the largest shift of an image along each axis, in pixels, less than its height and width. The border is
        filled by reflection. 0 shifts nothing.
      index: the images' numbers; by default their positions in the batch.

    Returns:
      The batch, with every shape and dtype unchanged. The result for an image depends on the key, its number and the
      image alone.

    Raises:
      UserError: where `crop` is not 0 and entries differ in size, or `crop` is not less than the size; where an entry
        would no longer belong to the image, or may be a map of its pixels or something else.
    """
    if not (flip or crop):
        return dict(batch)
    images = _moving(batch)
    if not images:
        return dict(batch)
    _check_crop(images, crop)
    if index is None:
        index = jnp.arange(len(next(iter(images.values()))))
    keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(index)

    def moved(key: jax.Array, values: dict[str, jax.Array]) -> dict[str, jax.Array]:
        flip_key, crop_key = jax.random.split(key)
        mirrored = jax.random.bernoulli(flip_key)
        shift = jax.random.randint(crop_key, (2,), 0, 2 * crop + 1)  # 0 .. 2 crop of the padded image

        def one(image: jax.Array) -> jax.Array:
            return _move(image, mirrored if flip else None, shift, crop)

        return {name: jax.vmap(one)(value) if value.ndim == 4 else one(value) for name, value in values.items()}

    return {**batch, **jax.vmap(moved)(keys, images)}


def mirrored(batch: Mapping[str, AnyArray]) -> dict[str, AnyArray]:
    """Returns the batch with all pictures mirrored left to right, those that `augment` moves.

    Raises:
      UserError: as `augment` does.
    """
    moving = _moving(batch)
    return {**batch, **{name: x[..., ::-1] if x.ndim == 3 else x[..., ::-1, :] for name, x in moving.items()}}


def _moving(batch: Mapping[str, AnyArray]) -> dict[str, AnyArray]:
    """Returns the entries that are transformed.

    Raises:
      UserError: it is not clear whether an entry is, or one cannot be.
    """
    for name in batch:
        of = next((fixed for fixed in FIXED if name == fixed or name.endswith(f"_{fixed}")), None)
        if of:
            raise UserError(f"config.data.flip and crop are not for data with {name!r}: {FIXED[of]}; leave them off.")
    pictures = {name: value for name, value in batch.items() if value.ndim in (4, 5)}
    sizes = {_size(value) for value in pictures.values()}
    maps = {name: value for name, value in batch.items() if value.ndim == 3}
    for name, value in maps.items() if pictures else ():
        whole, alike = jnp.issubdtype(value.dtype, jnp.integer), _size(value) in sizes
        if whole != alike:
            mend = (
                "is not of the image's size, so that it is not known whether it moves with it; bring it to that size"
                if whole
                else "is of the image's size, but a map of numbers is [H, W, 1]; save it so if it moves with the image"
            )
            raise UserError(
                f"config.data.flip and crop: the entry {name!r}, {value.dtype} {list(value.shape[1:])}, {mend}, or "
                "leave flip and crop off."
            )
    return pictures | {name: value for name, value in maps.items() if jnp.issubdtype(value.dtype, jnp.integer)}


def _size(value: jax.Array | np.ndarray) -> tuple[int, int]:
    """Returns the height and width of `[B, H, W]`, `[B, H, W, C]` or `[B, F, H, W, C]`."""
    height, width = value.shape[2:4] if value.ndim == 5 else value.shape[1:3]
    return height, width


def _check_crop(images: Mapping[str, jax.Array], crop: int) -> None:
    sizes = {_size(value) for value in images.values()}
    if crop and (len(sizes) > 1 or crop < 0 or crop >= min(min(sizes))):
        raise UserError(
            f"A random crop by {crop} pixels needs entries of one size that is larger, but the batch has "
            + ", ".join(f"{name} {_size(value)[0]}x{_size(value)[1]}" for name, value in images.items())
            + "; lower config.data.crop."
        )


def _move(image: jax.Array, mirrored: jax.Array | None, shift: jax.Array, crop: int) -> jax.Array:
    """Mirrors and shifts one image `[H, W, ...]`."""
    if mirrored is not None:
        image = jnp.where(mirrored, image[:, ::-1], image)
    if crop:
        border = [(crop, crop), (crop, crop)] + [(0, 0)] * (image.ndim - 2)
        start = (shift[0], shift[1]) + (0,) * (image.ndim - 2)
        image = jax.lax.dynamic_slice(jnp.pad(image, border, mode="reflect"), start, image.shape)
    return image


def prepare(
    batch: Batch,
    key: Key[jax.Array, ""],
    flip: bool = False,
    crop: int = 0,
    corruptions: Mapping[str, Corruption] = MappingProxyType({}),
) -> Batch:
    """Returns the loader's batch as losses see it.

    It is augmented, its uint8 images are float32 in [-1, 1], and it has the entries that its images give.

    Raises:
      UserError: the data have an entry that a corruption would make.
    """
    taken = sorted(corruptions.keys() & batch.keys())
    if taken:
        raise UserError(
            f"config.data.corruptions.{taken[0]}: the data have an entry {taken[0]!r} already; use another name."
        )
    if corruptions and "mask" in batch and "mask" in entries_of(corruptions, batch["image"].shape[1:]):
        raise UserError(
            "config.data.corruptions make a 'mask', and the data have an entry 'mask' of their own: give that another "
            "name, such as config.data.rename.object_mask='mask'."
        )
    if flip or crop:
        batch = augment(key, batch, flip, crop)
    batch = to_float(batch)
    if not corruptions:
        return batch
    rows = jnp.arange(len(batch["image"]))
    return corrupt(batch, jax.vmap(lambda i: jax.random.fold_in(key, i))(rows), corruptions)
