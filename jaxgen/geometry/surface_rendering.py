"""Surface rendering: pictures, depths and masks of the surface where a function of space is 0, with gradients.

The surface is found by its first change of sign along each ray and has the gradient of the implicit function (Niemeyer
et al. 2020, "Differentiable Volumetric Rendering", equation 7). Its outline has one too, since the mask is a sigmoid of
the lowest value along the ray (Yariv et al. 2020, "Multiview Neural Surface Reconstruction", equation 7). Colours are
looked up at one point of each ray, so that a backward pass costs two lookups a ray, however finely it was searched.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float

from jaxgen.arrays import Array
from jaxgen.geometry import cameras
from jaxgen.geometry.volume import ball

Function = Callable[[Array], Array]
HALVINGS = 4  # of the piece in which the sign changes
STEEPEST = -1e-2  # slopes along a ray above this are no front of a surface


def render(
    distance: Function,
    colour: Function,
    camera: Float[Array, "B 25"],
    size: tuple[int, int],
    samples: int,
    sharpness: float = 30.0,
    background: float = 1.0,
) -> dict[str, Array]:
    """Returns what cameras see: `image` `[B, H, W, 3]`, `depth` `[B, H, W, 1]` and `mask` `[B, H, W, 1]` in [0, 1].

    A ray that meets nothing has the colour and the depth of the place where it comes nearest, and the mask of it.

    Args:
      distance: of points `[B, N, 3]`, `[B, N]`: negative inside. It need not be a true distance.
      colour: of points, `[B, N, 3]`.
      camera: as in `jaxgen.geometry.cameras`, outside the unit ball, in which everything is.
      size: (height, width).
      samples: values along the part of a ray in the ball, 2 or more; thinner things may be missed.
      sharpness: the slope of the mask, over 4, in the distance at the outline.
      background: the colour behind everything.
    """
    height, width = size
    origin, directions = cameras.rays(camera, height, width)
    directions = directions.reshape(len(camera), height * width, 3)
    near, far = ball(origin[:, None], directions)

    def at(depth: Array) -> Array:
        return distance(_points(origin, directions, depth))

    depth, nearest, met = jax.lax.stop_gradient(search(at, near, far, samples))
    exact = jnp.where(met, on_surface(at, depth), depth)
    mask = jax.nn.sigmoid(-sharpness * at(nearest))
    seen = colour(_points(origin, directions, exact))
    image = mask[..., None] * seen + background * (1 - mask)[..., None]
    shape = (len(camera), height, width)
    return {
        "image": image.reshape(*shape, 3),
        "depth": exact.reshape(*shape, 1),
        "mask": mask.reshape(*shape, 1),
    }


def search(
    at: Function, near: Float[Array, "B N"], far: Float[Array, "B N"], samples: int
) -> tuple[Float[Array, "B N"], Float[Array, "B N"], Bool[Array, "B N"]]:
    """Returns the depths of the first change of sign from plus to minus, of the lowest value, and which rays have one.

    Rays without one have the depth of the lowest value. There is no use in a gradient of the search.

    Args:
      at: the value at depths `[B, N]`, one for each ray.
      near, far: where rays begin and end. A value that is negative at once counts as met there.
      samples: values at equal steps; the piece in which the sign changes is then halved `HALVINGS` times.
    """
    shares = jnp.linspace(0, 1, samples)
    values = jax.lax.map(lambda share: at(near + share * (far - near)), shares)  # [S, B, N]
    inside = values < 0
    met = inside.any(0)
    first = jnp.where(met, inside.argmax(0), samples - 1)
    lowest = near + shares[values.argmin(0)] * (far - near)
    step = (far - near) / (samples - 1)
    end = near + first * step
    start = jnp.where(first > 0, end - step, end)

    def halve(_: int, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = ends
        middle = (low + high) / 2
        outside = at(middle) >= 0
        return jnp.where(outside, middle, low), jnp.where(outside, high, middle)

    low, high = jax.lax.fori_loop(0, HALVINGS, halve, (start, end))
    return jnp.where(met, (low + high) / 2, lowest), lowest, met


def on_surface(at: Function, depth: Float[Array, "B N"]) -> Float[Array, "B N"]:
    """Returns depths one step of Newton's nearer to the surface, whose gradient is that of the implicit function."""
    value, slope = jax.jvp(at, (depth,), (jnp.ones_like(depth),))
    slope = jax.lax.stop_gradient(slope)
    return depth - value / jnp.where(slope < STEEPEST, slope, -1.0)


def _points(origin: Array, directions: Array, depth: Array) -> Float[Array, "B N 3"]:
    return origin[:, None] + depth[..., None] * directions
