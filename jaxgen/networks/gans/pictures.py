"""Joins the pictures that networks are told, such as a condition or a map of classes, to the channels of one array."""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int

from jaxgen.arrays import Array
from jaxgen.errors import UserError

INSTANCE = "instance"  # the entry whose numbers tell objects apart; networks are told its boundaries alone


def boundaries(instance: Int[Array, "B H W"]) -> Bool[Array, "B H W"]:
    """Returns where a pixel's number differs from that of a neighbour above, below, left or right of it.

    It is the boundary map of Wang et al. (2018, "pix2pixHD", section 3.3), which separates objects of one class that
    touch each other. The pixels on both sides of a boundary belong to it.
    """
    found = jnp.zeros(instance.shape, bool)
    rows, columns = instance[:, 1:] != instance[:, :-1], instance[:, :, 1:] != instance[:, :, :-1]
    found = found.at[:, 1:].set(rows).at[:, :-1].max(rows)
    return found.at[:, :, 1:].max(columns).at[:, :, :-1].max(columns)


def joined(entries: Mapping[str, Array], classes: int = 0) -> Float[Array, "B H W C"]:
    """Returns pictures of one height and width as the channels of one array, in the order in which they are given.

    Args:
      entries: pictures `[B, H, W, C]` of floats, which stay as they are; `instance`, int32 `[B, H, W]`, which becomes
        the one channel of its `boundaries`; other maps of classes, int32 `[B, H, W]`, which become one-hot.
      classes: the number of classes of such maps. A number outside of [0, classes) has no channel.

    Raises:
      UserError: there is no picture, an entry is no picture, sizes differ, or maps of classes have no `classes`.
    """
    if not entries:
        raise UserError("A network that translates reads at least one picture: name one in its `reads`.")
    channels = []
    for name, entry in entries.items():
        if jnp.issubdtype(entry.dtype, jnp.integer) and entry.ndim == 3:
            if name != INSTANCE and classes < 1:
                raise UserError(f"{name!r} is a map of classes: set the network's `classes` to their number.")
            one_hot = boundaries(entry)[..., None] if name == INSTANCE else jax.nn.one_hot(entry, classes)
            channels.append(one_hot.astype(jnp.float32))
        elif jnp.issubdtype(entry.dtype, jnp.floating) and entry.ndim == 4:
            channels.append(entry)
        else:
            raise UserError(
                f"{name!r} has type {entry.dtype} and shape {entry.shape}, which is no picture: a network reads floats "
                "[B, H, W, C] or whole numbers [B, H, W]."
            )
        if channels[-1].shape[:3] != channels[0].shape[:3]:
            raise UserError(
                f"{name!r} has {channels[-1].shape[1]}x{channels[-1].shape[2]} pixels, and {next(iter(entries))!r} has "
                f"{channels[0].shape[1]}x{channels[0].shape[2]}: pictures of one example have one size."
            )
    return jnp.concatenate(channels, axis=-1)
