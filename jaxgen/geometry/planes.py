"""Three planes of features give every point of space a feature (Chan et al. 2022, EG3D, section 3).

A point of the box [-1, 1]^3 is projected onto the planes XY, XZ and YZ, reads each of them bilinearly, and the mean of
the three is its feature.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Float

from jaxgen.arrays import Array

AXES = ((0, 1), (0, 2), (1, 2))  # the coordinates along a plane's columns, and along its rows
PLANES = len(AXES)


def sample(planes: Float[Array, "B 3 R R C"], points: Float[Array, "B N 3"]) -> Float[Array, "B N C"]:
    """Returns the features of points: the mean over the planes of what `bilinear` reads there."""
    places = jnp.stack([points[..., axes] for axes in AXES], 1)  # [B, 3, N, 2]
    return jax.vmap(jax.vmap(bilinear))(planes, places).mean(1)


def bilinear(plane: Float[Array, "H W C"], places: Float[Array, "N 2"]) -> Float[Array, "N C"]:
    """Returns the values of a picture at places (x, y), where -1 and 1 are its outer borders and zeros lie outside.

    It is torch's `grid_sample` with `align_corners=False` and zeros as padding. What a place reads, the four pixels
    around it, is one row of a table that is made once, so that each place fetches one run of memory: on a CPU that is
    the fastest of the forms that XLA has (four fetches, one of a block, products with tent-shaped weights).
    """
    height, width, channels = plane.shape
    padded = jnp.pad(plane, ((1, 1), (1, 1), (0, 0)))
    corners = (padded[:-1, :-1], padded[:-1, 1:], padded[1:, :-1], padded[1:, 1:])
    table = jnp.concatenate(corners, -1).reshape((height + 1) * (width + 1), 4 * channels)
    pixel = (places + 1) * (jnp.array([width, height], places.dtype) / 2) - 0.5
    low = jnp.floor(pixel)
    share = pixel - low
    column, row = (low[:, i].astype(jnp.int32) + 1 for i in (0, 1))  # of the table: 0 is the border before the first
    known = (column >= 0) & (column <= width) & (row >= 0) & (row <= height)
    index = jnp.clip(row, 0, height) * (width + 1) + jnp.clip(column, 0, width)
    found = table.at[index].get(mode="promise_in_bounds").reshape(-1, 4, channels)
    x, y = share[:, 0], share[:, 1]
    weights = jnp.stack([(1 - y) * (1 - x), (1 - y) * x, y * (1 - x), y * x], -1)
    return jnp.einsum("nk,nkc->nc", jnp.where(known[:, None], weights, 0), found)
