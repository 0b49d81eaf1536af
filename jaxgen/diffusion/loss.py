"""Computes the denoising loss and, with a learned variance, the hybrid loss."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Float

from jaxgen.arrays import Array
from jaxgen.diffusion.bound import level_term
from jaxgen.diffusion.prediction import Denoiser, Prediction
from jaxgen.diffusion.process import diffuse
from jaxgen.diffusion.schedules.base import Schedule
from jaxgen.diffusion.weighting import Simple, Weighting
from jaxgen.errors import UserError

SIMPLE = Simple()


def denoising_loss(
    denoise: Denoiser,
    schedule: Schedule,
    x0: Float[Array, "B *shape"],
    t: Float[Array, "B"],
    noise: Float[Array, "B *shape"],
    weighting: Weighting = SIMPLE,
    counted: Float[Array, "B *#shape"] | None = None,
    **condition: jax.Array,
) -> Float[Array, "B"]:
    """Returns `[B]` losses: the weighted mean, over an example's values, of the prediction's squared error.

    Args:
      x0: `[B, ...]` clean images in [-1, 1].
      t: `[B]` in (0, 1].
      noise: standard normal, of x0's shape.
      counted: 1 for the values that the mean is over, and 0 for others; by default all are counted.
    """
    now = denoise(diffuse(schedule, x0, t, noise), t, **condition)
    return _weighted_error(now, x0, noise, weighting, counted)


def hybrid_loss(
    denoise: Denoiser,
    schedule: Schedule,
    x0: Float[Array, "B *shape"],
    t: Float[Array, "B"],
    noise: Float[Array, "B *shape"],
    weighting: Weighting = SIMPLE,
    vlb_weight: float = 1e-3,
    **condition: jax.Array,
) -> Float[Array, "B"]:
    """Returns `[B]` losses for a network that learns the variance: `denoising_loss` + vlb_weight L_vlb.

    This is Nichol & Dhariwal (2021), Eq. 16. L_vlb estimates the variational bound in bits per dimension from one
    level: it is `steps` times the level's term, which is unbiased where t is uniform. Its gradient reaches the
    predicted variance alone; the denoising loss trains the mean.

    Args:
      x0: `[B, ...]` images; a uint8 value v is v / 127.5 - 1. The other arguments are those of `denoising_loss`.
      vlb_weight: the weight of L_vlb.

    Raises:
      UserError: the schedule has no discrete levels, or the network learns no variance.
    """
    if not schedule.steps:
        raise UserError("A learned variance is trained on discrete levels; use a discrete schedule, such as 'cosine'.")
    now = denoise(diffuse(schedule, x0, t, noise), t, **condition)
    simple = _weighted_error(now, x0, noise, weighting)
    fixed_mean = dataclasses.replace(now, value=jax.lax.stop_gradient(now.value))
    level = jnp.round(t * schedule.steps)
    return simple + vlb_weight * schedule.steps * level_term(fixed_mean, x0, (level - 1) / schedule.steps, "learned")


def mean_of(values: Float[Array, "B *shape"], counted: Float[Array, "B *#shape"] | None = None) -> Float[Array, "B"]:
    """Returns `[B]` means over an example's values, or over those with `counted` 1; 0 where an example has none."""
    flat = values.reshape(values.shape[0], -1)
    if counted is None:
        return flat.mean(axis=1)
    weights = jnp.broadcast_to(counted, values.shape).reshape(flat.shape).astype(flat.dtype)
    return (flat * weights).sum(axis=1) / jnp.maximum(weights.sum(axis=1), 1)


def _weighted_error(
    now: Prediction,
    x0: Float[Array, "B *shape"],
    noise: Float[Array, "B *shape"],
    weighting: Weighting,
    counted: Float[Array, "B *#shape"] | None = None,
) -> Float[Array, "B"]:
    """Returns `[B]` means over an example's values of the squared error, times the weight."""
    error = now.value - now.prediction_type.target(now, x0, noise)
    return mean_of(jnp.square(error), counted) * weighting(now.schedule, now.t, now.prediction_type)
