"""How well pictures and depths agree: with the truth, and with those of another camera."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float

from jaxgen.arrays import Array
from jaxgen.geometry import cameras, planes

TOLERANCE = 0.1  # how far a point may be from the surface that another camera sees in its place
OPAQUE = 0.5  # the opacity from which on a pixel shows a surface


def correlation(one: Float[Array, "B ..."], other: Float[Array, "B ..."]) -> Float[Array, " B"]:
    """Returns Pearson's correlation of the values of each example; 0 where all values of one side are equal."""
    a, b = (x.reshape(len(x), -1) - x.reshape(len(x), -1).mean(1, keepdims=True) for x in (one, other))
    size = jnp.sqrt((a * a).sum(1) * (b * b).sum(1))
    return (a * b).sum(1) / jnp.where(size > 1e-6, size, jnp.inf)


class View(NamedTuple):
    """Holds what cameras see.

    Attributes:
      image: in [-1, 1].
      depth: the distance along the ray of each pixel's centre.
      opacity: in [0, 1].
      camera: as in `jaxgen.geometry.cameras`.
    """

    image: Float[Array, "B H W C"]
    depth: Float[Array, "B H W 1"]
    opacity: Float[Array, "B H W 1"]
    camera: Float[Array, "B 25"]


def reprojection(view: View, other: View) -> tuple[Float[Array, " B"], Float[Array, " B"]]:
    """Returns how far the colours of points are from those that another camera sees there, and how many points it sees.

    A pixel that shows a surface is moved into space by its depth, and from there into the other picture, which is read
    bilinearly. It is counted where the other camera shows a surface in its place, at most `TOLERANCE` nearer or farther
    than the point, so that what is hidden from one of the two is left out.

    Returns:
      the mean absolute difference of colours over the counted pixels, 0 where none is; and their share of all pixels.
    """
    count, height, width = view.image.shape[:3]
    origin, directions = cameras.rays(view.camera, height, width)
    points = (origin[:, None, None] + view.depth * directions).reshape(count, -1, 3)
    places, ahead = cameras.project(other.camera, points)
    seen = jnp.concatenate(other[:3], -1)
    found = jax.vmap(planes.bilinear)(seen, 2 * places - 1)
    other_origin = other.camera[:, :16].reshape(count, 4, 4)[:, :3, 3]
    apart = jnp.abs(jnp.linalg.norm(points - other_origin[:, None], axis=-1) - found[..., -2])
    solid = (view.opacity.reshape(count, -1) > OPAQUE) & (found[..., -1] > OPAQUE)
    counted = solid & (apart < TOLERANCE) & (ahead > 0)
    difference = jnp.abs(view.image.reshape(*apart.shape, -1) - found[..., :-2]).mean(-1)
    error = jnp.where(counted, difference, 0).sum(1) / jnp.maximum(counted.sum(1), 1)
    return error, counted.mean(1)
