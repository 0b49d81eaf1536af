"""Holds the forward process: q(x_t | x_0) adds noise, and q(x_s | x_t, x_0) is the state at a time s before t."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Float

from jaxgen.arrays import Array
from jaxgen.diffusion.schedules.base import Array as AnyArray
from jaxgen.diffusion.schedules.base import Schedule, array_module
from jaxgen.errors import UserError


def append_dims(values: Float[Array, "..."] | float, x: Float[Array, "B *shape"]) -> Float[Array, "..."]:
    """Appends axes to `[B]` or scalar values, so that they broadcast against x `[B, ...]`."""
    values = jnp.asarray(values)
    return values.reshape(values.shape + (1,) * (x.ndim - values.ndim)) if values.ndim else values


def diffuse(
    schedule: Schedule, x0: Float[Array, "B *shape"], t: Float[Array, "..."], noise: Float[Array, "B *shape"]
) -> Float[Array, "B *shape"]:
    """Returns a draw of q(x_t | x_0) = N(alpha x_0, sigma**2 I) (Ho et al. 2020, Eq. 4).

    Args:
      x0: `[B, ...]` clean images.

      t: `[B]` times, or a scalar.
      noise: standard normal, of x0's shape.
    """
    return append_dims(schedule.alpha(t), x0) * x0 + append_dims(schedule.sigma(t), x0) * noise


def posterior(
    schedule: Schedule, t: Float[Array, "..."], s: Float[Array, "..."], x: Float[Array, "B *shape"]
) -> tuple[Float[Array, "..."], Float[Array, "..."], Float[Array, "..."]]:
    """Returns q(x_s | x_t, x_0) for s < t: the factors of `mean = of_x x_t + of_x0 x_0`, and its variance.

    These are Ho et al. (2020), Eqs. 6-7, for any pair of times (Kingma et al. 2021, Appendix A). Returns the three
    arrays of_x, of_x0 and variance, which broadcast against `x`. At s = 0 without noise the mean is x_0 and the
    variance 0.
    """
    t, s = jnp.asarray(t), jnp.asarray(s)
    alpha_t, alpha_s = append_dims(schedule.alpha(t), x), append_dims(schedule.alpha(s), x)
    sigma_t, sigma_s = append_dims(schedule.sigma(t), x), append_dims(schedule.sigma(s), x)
    added = append_dims(added_noise_share(schedule, t, s), x)
    return alpha_t / alpha_s * (sigma_s / sigma_t) ** 2, alpha_s * added, added * sigma_s**2


def added_noise_share(
    schedule: Schedule, t: Float[AnyArray, "*shape"], s: Float[AnyArray, "*shape"]
) -> Float[AnyArray, "*shape"]:
    """Returns the share of the variance sigma(t)**2 that was added between s and t: 1 - SNR(t) / SNR(s), in [0, 1]."""
    change = schedule.log_snr(t) - schedule.log_snr(s)
    return -array_module(change).expm1(change)


def previous_level(schedule: Schedule, t: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Returns the time one discrete noise level below t, but at least 0.

    Raises:
      UserError: the schedule is continuous.
    """
    if not schedule.steps:
        raise UserError("The posterior mean is a prediction type for discrete schedules only, such as 'linear'.")
    return jnp.maximum(t - 1 / schedule.steps, 0.0)
