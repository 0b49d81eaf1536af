"""Lays pictures of several kinds beside each other, for the panels of translations."""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
from jaxtyping import Float

from jaxgen.arrays import Array
from jaxgen.colours import class_colours
from jaxgen.networks.gans.pictures import INSTANCE, boundaries

LUMINANCE = (0.299, 0.587, 0.114)


def as_picture(name: str, entry: Array, classes: int) -> Float[Array, "B H W C"]:
    """Returns an entry of a batch as pictures in [-1, 1]: maps of classes in colours, instances as their boundaries."""
    if entry.ndim == 4:
        return entry
    if name == INSTANCE:
        return jnp.where(boundaries(entry), 1.0, -1.0)[..., None]
    colours = jnp.asarray(class_colours(max(classes, 1)), jnp.float32) / 127.5 - 1
    return colours[jnp.clip(entry, 0, len(colours) - 1)]


def side_by_side(cells: Sequence[Float[Array, "N H W _"]], shape: tuple[int, int, int]) -> Float[Array, "M H W C"]:
    """Returns the pictures of all cells in the order of the examples, with the channels of `shape`, (H, W, C)."""
    fitted = []
    for cell in cells:
        if cell.shape[-1] != shape[-1]:
            grey = cell if cell.shape[-1] == 1 else cell @ jnp.asarray(LUMINANCE)[:, None]
            cell = jnp.broadcast_to(grey, (*grey.shape[:-1], shape[-1]))
        fitted.append(cell)
    return jnp.stack(fitted, axis=1).reshape(-1, *fitted[0].shape[1:])
