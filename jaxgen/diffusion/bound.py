"""Computes the terms of the variational bound (Ho et al. 2020, Eq. 5), each in bits per dimension.

- L_T, KL(q(x_T | x_0) || N(0, I)): `prior_term`
- L_{t-1} for t > 1, KL(q(x_{t-1} | x_t, x_0) || p(x_{t-1} | x_t)): `level_term`
- L_0, -log p(x_0 | x_1), a Gaussian's mass over each of 256 values: `level_term` at s = 0
"""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jaxgen.arrays import Array
from jaxgen.diffusion.prediction import Prediction, reverse_log_variance
from jaxgen.diffusion.process import added_noise_share, append_dims, posterior
from jaxgen.diffusion.schedules import Schedule

Variance = Literal["small", "large", "learned"]

LOG_2 = float(np.log(2.0))
# a value v of 0..255 is the number v / 127.5 - 1, so its bin reaches this far to both sides
HALF_BIN = 1 / 255


def gaussian_kl(
    mean_q: Float[Array, "B *shape"],
    log_variance_q: Float[Array, "..."],
    mean_p: Float[Array, "B *shape"] | float,
    log_variance_p: Float[Array, "..."],
) -> Float[Array, "B *shape"]:
    """Returns KL(N(mean_q, exp(log_variance_q)) || N(mean_p, exp(log_variance_p))) of each value, in nats."""
    difference = log_variance_p - log_variance_q
    squared = jnp.square(mean_q - mean_p) * jnp.exp(-log_variance_p)
    return 0.5 * (difference + jnp.expm1(-difference) + squared)


def decoder_nll(
    x0: Float[Array, "B *shape"], mean: Float[Array, "B *shape"], log_variance: Float[Array, "..."]
) -> Float[Array, "B *shape"]:
    """Returns -log of a Gaussian's mass over the bin of each value of x0, in nats (Ho et al. 2020, Eq. 13).

    Args:
      x0: uint8 values v as v / 127.5 - 1. The outermost bins reach to infinity, so the 256 masses sum to 1.
    """
    shift, precision = x0 - mean, jnp.exp(-0.5 * log_variance)
    # by the symmetry of the Gaussian both ends of the bin are brought to its left, where log_ndtr is precise
    lowest, highest = x0 < -1 + HALF_BIN, x0 > 1 - HALF_BIN
    high = (HALF_BIN - jnp.abs(shift)) * precision
    low = (-HALF_BIN - jnp.abs(shift)) * precision
    log_high = jax.scipy.special.log_ndtr(high)
    # log(F(high) - F(low)) = log F(high) + log(1 - F(low) / F(high))
    inside = log_high + jnp.log(-jnp.expm1(jnp.minimum(jax.scipy.special.log_ndtr(low) - log_high, -1e-12)))
    below = jax.scipy.special.log_ndtr((shift + HALF_BIN) * precision)
    above = jax.scipy.special.log_ndtr((HALF_BIN - shift) * precision)
    return -jnp.where(lowest, below, jnp.where(highest, above, inside))


def level_term(
    now: Prediction, x0: Float[Array, "B *shape"], s: Float[Array, "..."], variance: Variance = "small"
) -> Float[Array, "B"]:
    """Returns `[B]` bits per dimension of the step from `now.t` to s: a KL divergence, or L_0 where s = 0.

    Args:
      now: the prediction at x_t, a draw of q(x_t | x0).
      x0: `[B, ...]` uint8 values as v / 127.5 - 1.
      s: `[B]` or scalar times below `now.t`.
      variance: which variance p(x_s | x_t) has, see `jaxgen.diffusion.samplers.ddpm.DDPM`. The posterior of the last
        step has the variance 0; a fixed variance then takes the posterior's of the step one level above.
    """
    t = now.t
    s = jnp.broadcast_to(jnp.asarray(s, t.dtype), t.shape)
    above, below = jnp.where(s > 0, t, 2 * t), jnp.where(s > 0, s, t)
    fresh = added_noise_share(now.schedule, above, below)
    of_posterior = append_dims(jnp.log(fresh) + 2 * jnp.log(now.schedule.sigma(below)), x0)
    if variance == "learned":
        log_variance = reverse_log_variance(now, s)
    elif variance == "large":
        added = append_dims(jnp.log(fresh) + 2 * jnp.log(now.schedule.sigma(above)), x0)
        log_variance = jnp.where(append_dims(s, x0) > 0, added, of_posterior)
    else:
        log_variance = of_posterior
    of_x, of_x0, _ = posterior(now.schedule, t, s, x0)
    mean = of_x * now.x + of_x0 * now.x0
    kl = gaussian_kl(of_x0 * x0, of_posterior, of_x0 * now.x0, log_variance)
    # each formula could overflow on the other's arguments, so decoder_nll gets zeros where the KL is taken
    last = append_dims(s, x0) <= 0
    nll = decoder_nll(jnp.where(last, x0, 0.0), jnp.where(last, mean, 0.0), jnp.where(last, log_variance, 0.0))
    return _per_dimension(jnp.where(last, nll, kl))


def prior_term(schedule: Schedule, x0: Float[Array, "B *shape"]) -> Float[Array, "B"]:
    """Returns L_T as `[B]` bits per dimension: what q(x_T | x_0) still says about x_0."""
    one = jnp.ones(x0.shape[0])
    mean = append_dims(schedule.alpha(one), x0) * x0
    log_variance = 2 * jnp.log(append_dims(schedule.sigma(one), x0))
    return _per_dimension(gaussian_kl(mean, log_variance, 0.0, 2 * jnp.log(schedule.prior_std)))


def _per_dimension(nats: jax.Array) -> jax.Array:
    return nats.reshape(nats.shape[0], -1).mean(axis=1) / LOG_2
