"""Interpolates between images: spherically between their latents, from which a sampler makes images.

Interpolation at a noise level below the highest (Ho et al. 2020, Section 4.3) is SDEdit of two images' mixture.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Float

from jaxgen.arrays import Array

# Two vectors whose cosine is nearer than this to 1 or -1 count as parallel: the weights on the arc would be quotients
# of rounding errors.
PARALLEL = 1e-6

Decode = Callable[[Float[Array, "B *latent"]], Float[Array, "B *shape"]]  # latents -> images


def slerp_noise(
    a: Float[Array, "B *shape"], b: Float[Array, "B *shape"], share: Float[Array, "..."] | float
) -> Float[Array, "B *shape"]:
    """Spherical interpolation (Shoemake 1985) of each example, a at share 0 and b at 1; any share is allowed.

    Between vectors of equal length all points have this length, as normal noise in many dimensions should (Song et al.
    2020, Appendix D.5); a straight line would pass through shorter, unlikely points. Where the two are parallel or
    opposite there is no single arc, and the straight line is taken.

    Args:
      a, b: `[B, ...]`.
      share: a number, or `[B]`.
    """
    flat_a, flat_b = (x.reshape(len(x), -1) for x in (a, b))
    share = jnp.broadcast_to(jnp.asarray(share, flat_a.dtype), flat_a.shape[:1])[:, None]
    inner, squares = _inner(flat_a, flat_b), _inner(flat_a, flat_a) * _inner(flat_b, flat_b)
    cosine = inner / jnp.sqrt(jnp.maximum(squares, jnp.finfo(inner.dtype).tiny))
    curved = jnp.abs(cosine) < 1 - PARALLEL
    angle = jnp.arccos(jnp.where(curved, cosine, 0.0))
    sine = jnp.sin(angle)
    of_a = jnp.where(curved, jnp.sin((1 - share) * angle) / sine, 1 - share)
    of_b = jnp.where(curved, jnp.sin(share * angle) / sine, share)
    return (of_a * flat_a + of_b * flat_b).reshape(a.shape)


def interpolate(
    decode: Decode, a: Float[Array, "B *latent"], b: Float[Array, "B *latent"], count: int = 9
) -> Float[Array, "count B *shape"]:
    """Returns `[count, B, ...]` images on the arcs between latents `[B, ...]`, the ends included.

    Args:
      decode: latents to images, such as `lambda x: ddim(denoise, schedule, x, keys)`; deterministic, or the frames
        will not join. It sees one batch of B at a time, so that conditions may be closed over.
    """
    return jax.lax.map(lambda share: decode(slerp_noise(a, b, share)), jnp.linspace(0.0, 1.0, count, dtype=a.dtype))


def interpolation_grid(
    decode: Decode, corners: Float[Array, "4 *latent"], rows: int = 8, columns: int = 8
) -> Float[Array, "rows columns *shape"]:
    """Returns `[rows, columns, ...]` images between four latents (Song et al. 2020, Appendix D.5).

    Args:
      corners: `[4, ...]`: top left, top right, bottom left, bottom right.
      decode: latents `[columns, ...]` to images, a row at a time.
    """
    across = jnp.linspace(0.0, 1.0, columns, dtype=corners.dtype)
    top, top_right, bottom, bottom_right = (jnp.repeat(c[None], columns, axis=0) for c in corners)
    above, below = slerp_noise(top, top_right, across), slerp_noise(bottom, bottom_right, across)
    return interpolate(decode, above, below, rows)


def _inner(a: jax.Array, b: jax.Array) -> jax.Array:
    return (a * b).sum(axis=1, keepdims=True)
