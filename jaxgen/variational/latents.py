"""Makes paths through latent space, whose images show what a model has learned, and counts the latents that it uses."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.arrays import Array
from jaxgen.errors import UserError

if TYPE_CHECKING:
    from jaxtyping import Float, Int

ACTIVE = 0.01  # variance of the posterior's mean over data above which a latent is in use (Burda et al. 2016, Sec. 5.2)

TAIL = 0.02  # of the prior's probability, on each side of the plane of quantiles


def traverse(
    base: Float[Array, "R D"], axes: Int[Array, " R"], steps: int = 8, reach: float = 3.0
) -> Float[Array, "R steps D"]:
    """Moves one latent of each row from -reach to reach and keeps the others.

    Args:
      base: the latents that the paths start from, one row for each path.
      axes: the index of the latent that moves in each row.
      steps: the number of points of a path.
      reach: the largest value of that latent, in standard deviations of the prior.
    """
    moved = jnp.linspace(-reach, reach, steps)
    moves = jnp.arange(base.shape[-1]) == axes[:, None, None]
    return jnp.where(moves, moved[:, None], base[:, None])


def line(start: Float[Array, "R D"], end: Float[Array, "R D"], steps: int = 8) -> Float[Array, "R steps D"]:
    """Returns evenly spaced points on the straight lines from `start` to `end`, both ends included."""
    way = jnp.linspace(0.0, 1.0, steps)[:, None]
    return (1 - way) * start[:, None] + way * end[:, None]


def plane(side: int, tail: float = TAIL) -> Float[Array, "side side 2"]:
    """Returns a grid of quantiles of the prior, x to the right and y upwards (Kingma & Welling 2014, Appendix A).

    The quantiles are evenly spaced in probability from `tail` to 1 - tail, so that every cell of the grid has the same
    probability under the prior.
    """
    quantiles = jax.scipy.stats.norm.ppf(jnp.linspace(tail, 1 - tail, side))
    return jnp.stack(jnp.meshgrid(quantiles, quantiles[::-1]), axis=-1)


def active(means: Float[np.ndarray, "N D"], least: float = ACTIVE) -> int:
    """Counts the latents in use: those whose posterior mean has a variance above `least` over a data set's images.

    Raises:
      UserError: for fewer than two images.
    """
    means = np.asarray(means, np.float64)
    if means.ndim != 2 or len(means) < 2:
        raise UserError(f"Active latents are counted over [N, D] means of at least two images, not {means.shape}.")
    return int((means.var(axis=0) > least).sum())
