"""Decodes in parts: a few examples at a time, or a few places of a large one, so that memory stays bounded."""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Float

from jaxgen.arrays import Array
from jaxgen.errors import UserError

Decode = Callable[[Array], Array]  # [B, h, w, D] -> [B, f h, f w, C]


def in_chunks(function: Decode, x: Array, size: int) -> Array:
    """Returns `function(x)`, computed for `size` examples at a time; 0 stands for all at once.

    The result is the same where the function treats each example alone. With n chunks, chunk i has the examples i,
    i + n, i + 2 n and so on, so that examples stay on their devices.
    """
    if not size or len(x) <= size:
        return function(x)
    count = -(-len(x) // size)
    padded = jnp.concatenate([x, jnp.repeat(x[-1:], count * size - len(x), axis=0)])
    parts = lax.map(function, padded.reshape(size, count, *x.shape[1:]).swapaxes(0, 1))
    return parts.swapaxes(0, 1).reshape(-1, *parts.shape[2:])[: len(x)]


def starts(length: int, tile: int, overlap: int) -> tuple[int, ...]:
    """Returns where tiles begin along a side: evenly spaced, inside the side, with at least `overlap` places shared."""
    if length <= tile:
        return (0,)
    count = -(-(length - overlap) // (tile - overlap))
    return tuple(int(x) for x in np.round(np.linspace(0, length - tile, count)))


def ramp(start: int, tile: int, length: int, overlap: int, factor: int) -> np.ndarray:
    """Returns the weight of a tile at each pixel along a side.

    It is 1 inside, 0 in the outer quarter of each overlap, and linear between the two. At a border of the image there
    is no overlap, and the weight is 1.
    """
    place = (np.arange(tile * factor) + 0.5) / factor  # in latents, from the tile's beginning
    quarter = overlap / 4
    rise = np.clip((place - quarter) / (2 * quarter), 0, 1) if start > 0 else np.ones_like(place)
    fall = np.clip((tile - place - quarter) / (2 * quarter), 0, 1) if start + tile < length else np.ones_like(place)
    return rise * fall


def decode_tiled(decode: Decode, z: Float[Array, "B h w D"], tile: int, overlap: int) -> Float[Array, "B H W C"]:
    """Returns `decode(z)` for latents of any size, decoded in square tiles that are blended where they overlap.

    The memory needed is that of one tile. The outer quarter of each overlap is thrown away. If pixels depend on no
    latent farther away than `overlap / 4`, the result therefore equals that of decoding at once. A decoder with
    attention, or with normalisation over the image, gives nearly the same: its statistics are those of each tile.

    Args:
      z: [B, h, w, D]; a side that is shorter than a tile is not cut.
      tile: latents along a tile's side, at least 2.
      overlap: the least number of latents that neighbours share, above 0 and at most half of `tile`.

    Raises:
      UserError: the tile or the overlap is out of range.
    """
    if tile < 2 or not 0 < overlap <= tile // 2:
        raise UserError(
            f"tiles of {tile} latents with an overlap of {overlap} do not do: a tile has two at least, and the overlap "
            "is at least 1 and at most half a tile."
        )
    sides = z.shape[1:3]
    if max(sides) <= tile:
        return decode(z)
    high, wide = (min(tile, side) for side in sides)
    rows, columns = (starts(side, tile, overlap) for side in sides)
    places = np.array([(y, x) for y in rows for x in columns])

    def one(place: Array) -> Array:
        return decode(lax.dynamic_slice(z, (0, place[0], place[1], 0), (len(z), high, wide, z.shape[-1])))

    parts = lax.map(one, jnp.asarray(places))  # [tiles, B, f high, f wide, C]
    factor = parts.shape[2] // high
    total = jnp.zeros((len(z), factor * sides[0], factor * sides[1], parts.shape[-1]), parts.dtype)
    weights = np.zeros((factor * sides[0], factor * sides[1], 1), np.float32)
    for (y, x), part in zip(places, parts, strict=True):
        of_rows, of_columns = (
            ramp(start, size, side, overlap, factor) for start, size, side in ((y, high, sides[0]), (x, wide, sides[1]))
        )
        weight = (of_rows[:, None] * of_columns)[..., None].astype(np.float32)
        where = (slice(y * factor, (y + high) * factor), slice(x * factor, (x + wide) * factor))
        total = total.at[:, *where].add(weight * part)
        weights[where] += weight
    return total / weights
