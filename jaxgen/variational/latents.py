"""Walks through latent space, whose images show what a model has learned; and how many latents it uses."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.arrays import Array
from jaxgen.errors import UserError

ACTIVE = 0.01  # variance of the posterior's mean over data above which a latent is in use (Burda et al. 2016, Sec. 5.2)


def traverse(base: Array, axes: Array, steps: int = 8, reach: float = 3.0) -> Array:
    """One latent of each base from -reach to reach, the others left: `[R, steps, D]`.

    Args:
      base: `[R, D]`. axes: int `[R]`, the latent that moves in each row. reach: in standard deviations of the prior.
    """
    moved = jnp.linspace(-reach, reach, steps)
    here = jnp.arange(base.shape[-1]) == axes[:, None, None]
    return jnp.where(here, moved[:, None], base[:, None])


def line(start: Array, end: Array, steps: int = 8) -> Array:
    """Straight ways from `[R, D]` to `[R, D]`, both ends included: `[R, steps, D]`."""
    way = jnp.linspace(0.0, 1.0, steps)[:, None]
    return (1 - way) * start[:, None] + way * end[:, None]


def plane(side: int, tail: float = 0.02) -> Array:
    """`[side, side, 2]` quantiles of the prior, x to the right and y upwards (Kingma & Welling 2014, Appendix A).

    Equal steps in probability from `tail` to 1 - tail: each cell stands for as much of the prior as any other.
    """
    quantiles = jax.scipy.stats.norm.ppf(jnp.linspace(tail, 1 - tail, side))
    return jnp.stack(jnp.meshgrid(quantiles, quantiles[::-1]), axis=-1)


def active(means: np.ndarray, least: float = ACTIVE) -> int:
    """How many latents are in use, from the posterior means `[N, D]` of a data set: those whose mean varies with the
    image, by a variance above `least`.

    Raises:
      UserError: for fewer than two images.
    """
    means = np.asarray(means, np.float64)
    if means.ndim != 2 or len(means) < 2:
        raise UserError(f"Active latents are counted over [N, D] means of at least two images, not {means.shape}.")
    return int((means.var(axis=0) > least).sum())
