"""Volume rendering: pictures, depths and masks of a field of density and colour (Max 1995; Mildenhall et al. 2020).

A field is a function of points `[B, N, 3]` that returns their density `[B, N]`, 0 or more, per unit of length, and
their colour `[B, N, 3]`. Everything is within the unit ball: the part of a ray inside it is cut into equal pieces, one
sample is taken in each, and further ones, if asked for, where the first found matter. Between neighbouring samples
density and colour are the means of the two, as in EG3D.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Float, Key

from jaxgen.arrays import Array
from jaxgen.geometry import cameras

Field = Callable[[Array], tuple[Array, Array]]
FLOOR = 0.01  # added to all weights that further samples are drawn by, so that they miss nothing


def render(
    field: Field,
    camera: Float[Array, "B 25"],
    size: tuple[int, int],
    samples: int,
    more: int = 0,
    keys: Key[Array, " B"] | None = None,
    background: float = 1.0,
) -> dict[str, Array]:
    """Returns what cameras see of fields: `image` `[B, H, W, 3]`, `depth` `[B, H, W, 1]` and `mask` `[B, H, W, 1]`.

    The image is the expected colour, with `background` where a ray goes on; the mask is the share of light that does
    not; the depth is the mean distance along the ray of where light stops, or the middle of the ball's part of the ray
    where none does.

    Args:
      field: density and colour of points; example b's points are in row b.
      camera: as in `jaxgen.geometry.cameras`, outside the unit ball.
      size: (height, width).
      samples: on each ray, 2 or more.
      more: further samples on each ray, drawn in proportion to the weights of the first; there is no gradient in where
        they are.
      keys: one for each image, which move each sample within its piece; without them each is in the middle.
      background: the colour behind everything.
    """
    height, width = size
    origin, directions = cameras.rays(camera, height, width)
    directions = directions.reshape(len(camera), height * width, 3)
    near, far = ball(origin[:, None], directions)
    of_first, of_more = (None, None) if keys is None else jnp.moveaxis(jax.vmap(jax.random.split)(keys), 1, 0)
    depths = stratified(near, far, samples, of_first)
    found = _looked_up(field, origin, directions, depths)
    if more:
        weights = _composited(*found, depths)[0]
        further = importance(jax.lax.stop_gradient(weights), depths, more, of_more)
        depths = jnp.concatenate([depths, further], -1)
        added = _looked_up(field, origin, directions, further)
        order = jnp.argsort(depths, -1)
        depths = jnp.take_along_axis(depths, order, -1)
        density, colour = (jnp.concatenate(both, 2) for both in zip(found, added, strict=True))
        found = jnp.take_along_axis(density, order, -1), jnp.take_along_axis(colour, order[..., None], -2)
    weights, colour, middles = _composited(*found, depths)
    mask = weights.sum(-1)
    image = jnp.einsum("brs,brsc->brc", weights, colour) + background * (1 - mask)[..., None]
    seen = mask > 1e-3
    depth = jnp.where(seen, (weights * middles).sum(-1) / jnp.where(seen, mask, 1.0), (near + far) / 2)
    shape = (len(camera), height, width)
    return {
        "image": image.reshape(*shape, 3),
        "depth": depth.reshape(*shape, 1),
        "mask": mask.reshape(*shape, 1),
    }


def ball(origin: Float[Array, "*B 3"], directions: Float[Array, "*B 3"]) -> tuple[Array, Array]:
    """Returns where rays, with directions of length one, enter and leave the unit ball: the same where they miss it."""
    along = -(origin * directions).sum(-1)
    miss = (origin * origin).sum(-1) - along**2  # squared distance between ray and centre
    inside = miss < 1
    half = jnp.where(inside, jnp.sqrt(jnp.where(inside, 1 - miss, 1.0)), 0.0)
    return along - half, along + half


def stratified(
    near: Float[Array, "B N"], far: Float[Array, "B N"], samples: int, keys: Key[Array, " B"] | None = None
) -> Float[Array, "B N samples"]:
    """Returns one depth in each of `samples` equal pieces between near and far: uniform in it, or its middle."""
    place: Array | float = 0.5
    if keys is not None:
        place = jax.vmap(lambda key: jax.random.uniform(key, (*near.shape[1:], samples)))(keys)
    return near[..., None] + (far - near)[..., None] * ((jnp.arange(samples) + place) / samples)


def composite(density: Float[Array, "*B S"], lengths: Float[Array, "*B S"]) -> Float[Array, "*B S"]:
    """Returns the share of a ray's light that stops in each piece (Max 1995); their sum is at most 1.

    Args:
      density: of each piece.
      lengths: how long the pieces are; the first is in front.
    """
    through = density * lengths
    before = jnp.cumsum(through, -1) - through  # what lies in front of the piece
    return jnp.exp(-before) * -jnp.expm1(-through)


def importance(
    weights: Float[Array, "B N S-1"], depths: Float[Array, "B N S"], count: int, keys: Key[Array, " B"] | None = None
) -> Float[Array, "B N count"]:
    """Returns depths that are distributed as the weights of the pieces between neighbouring depths.

    The weights are smoothed, and raised by FLOOR, as in EG3D: the larger of each two neighbours, then the mean of two.

    Args:
      weights: of each piece.
      depths: where the pieces begin and end, ascending.
      count: how many depths of each ray.
      keys: one for each image, for uniform numbers in `count` equal pieces of [0, 1]; without them their middles.
    """
    padded = jnp.pad(weights, [(0, 0)] * (weights.ndim - 1) + [(1, 1)], mode="edge")
    larger = jnp.maximum(padded[..., :-1], padded[..., 1:])
    weights = (larger[..., :-1] + larger[..., 1:]) / 2 + FLOOR
    cumulative = jnp.cumsum(weights / weights.sum(-1, keepdims=True), -1)
    edges = jnp.pad(cumulative, [(0, 0)] * (weights.ndim - 1) + [(1, 0)])
    zero = jnp.zeros(weights.shape[:-1], weights.dtype)
    u = stratified(zero, zero + 1, count, keys)
    piece = (u[..., None] >= edges[..., None, 1:-1]).sum(-1)  # how many edges lie below
    low, high = (jnp.take_along_axis(edges, piece + i, -1) for i in (0, 1))
    start, end = (jnp.take_along_axis(depths, piece + i, -1) for i in (0, 1))
    return start + (end - start) * jnp.clip((u - low) / jnp.maximum(high - low, 1e-6), 0, 1)


def _looked_up(field: Field, origin: Array, directions: Array, depths: Array) -> tuple[Array, Array]:
    """Returns density `[B, N, S]` and colour `[B, N, S, 3]` of the samples of rays."""
    points = origin[:, None, None] + depths[..., None] * directions[:, :, None]
    density, colour = field(points.reshape(len(points), -1, 3))
    return density.reshape(depths.shape), colour.reshape(*depths.shape, 3)


def _composited(density: Array, colour: Array, depths: Array) -> tuple[Array, Array, Array]:
    """Returns weights, colours and middles of the pieces between neighbouring samples."""
    weights = composite((density[..., 1:] + density[..., :-1]) / 2, depths[..., 1:] - depths[..., :-1])
    return weights, (colour[..., 1:, :] + colour[..., :-1, :]) / 2, (depths[..., 1:] + depths[..., :-1]) / 2
