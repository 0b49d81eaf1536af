"""Holds what methods that give masks share: what they ask of their data, and how a mask is shown."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Bool, Float, Int

from jaxgen.arrays import Array, Batch, MissingEntry
from jaxgen.colours import class_colours
from jaxgen.errors import UserError

MOST_CLASSES = 256  # numbers of classes that a PNG's palette holds


def check_classes(classes: int, ignore: int | None) -> None:
    """Raises a UserError for a number of classes that no mask has, and for an ignored number that is a class."""
    if not 2 <= classes <= MOST_CLASSES:
        raise UserError(f"config.method.classes is {classes}; it must be from 2 to {MOST_CLASSES}.")
    if ignore is not None and 0 <= ignore < classes:
        raise UserError(f"config.method.ignore={ignore} is one of the {classes} classes; name another.")


def check_masks(batch: Batch) -> None:
    """Raises a UserError for a batch without masks, or with masks of another size than its images."""
    if "mask" not in batch:
        raise MissingEntry(
            f"Segmentation learns from the entry 'mask', and the data have {', '.join(sorted(batch))}: choose a "
            "config.data.source with masks, or name the entry that it has in config.data.rename.mask."
        )
    (height, width), size = batch["mask"].shape[1:3], batch["image"].shape[1:3]
    if (height, width) != size:
        raise UserError(
            f"The data have masks of {width}x{height} pixels and images of {size[1]}x{size[0]}: a mask has the "
            "class of each pixel of its image, so bring it to that size."
        )


def counted(mask: Int[Array, "*shape"], ignore: int | None) -> Bool[Array, "*shape"]:
    """Returns which pixels have a class."""
    return jnp.ones(mask.shape, bool) if ignore is None else mask != ignore


def right_share(found: Int[Array, "B H W"], mask: Int[Array, "B H W"], ignore: int | None) -> Float[Array, " B"]:
    """Returns the share of each mask's counted pixels that are right."""
    known = counted(mask, ignore)
    return ((found == mask) & known).sum(axis=(1, 2)) / jnp.maximum(known.sum(axis=(1, 2)), 1)


def coloured(mask: Int[Array, "B H W"], classes: int) -> Float[Array, "B H W 3"]:
    """Returns masks in the colours of their classes; what is no class is grey."""
    colours = jnp.asarray(class_colours(classes), jnp.float32) / 127.5 - 1
    known = (mask >= 0) & (mask < classes)
    return jnp.where(known[..., None], colours[jnp.where(known, mask, 0)], 0.0)
