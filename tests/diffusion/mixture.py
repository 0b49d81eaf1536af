"""Data whose denoiser is known in closed form: a mixture of isotropic Gaussians, in any dimension.

Given component k, x_t is N(alpha mean_k, (alpha**2 std_k**2 + sigma**2) I), and x0 and epsilon follow by the rule of
conditional Gaussians; the mixture's answers are theirs, weighed by how likely each component made x_t.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.diffusion.prediction import Prediction
from jaxgen.diffusion.prediction_types import V
from jaxgen.diffusion.process import append_dims
from jaxgen.diffusion.schedules import Schedule

# three modes in the plane, of unequal widths and weights, within [-1, 1] for the most part
MEANS = np.asarray([[-0.6, -0.3], [0.5, 0.5], [0.4, -0.6]])
STDS = np.asarray([0.15, 0.25, 0.1])
WEIGHTS = np.asarray([0.3, 0.5, 0.2])


def denoiser(schedule: Schedule, means=MEANS, stds=STDS, weights=WEIGHTS):
    """`(x, t) -> Prediction`, exact; in the form v, so that x0 and epsilon are both finite at sigma = 0 and alpha = 0.

    Args:
      means: `[K, ...]` centres, of the shape of one image. stds: `[K]`, above 0. weights: `[K]`, above 0.
    """
    means, stds, weights = (np.asarray(v, np.float64) for v in (means, stds, weights))

    def denoise(x, t):
        t = jnp.broadcast_to(jnp.asarray(t, jnp.promote_types(x.dtype, jnp.float32)), x.shape[:1])
        alpha, sigma = schedule.alpha(t)[:, None], schedule.sigma(t)[:, None]
        mu, std = jnp.asarray(means, alpha.dtype), jnp.asarray(stds, alpha.dtype)
        variance = alpha**2 * std**2 + sigma**2  # [B, K]
        away = x[:, None] - append_dims(alpha, x[:, None]) * mu  # [B, K, ...]
        square = jnp.square(away).reshape(*away.shape[:2], -1)
        log_p = jnp.log(jnp.asarray(weights, alpha.dtype)) - 0.5 * square.sum(-1) / variance
        log_p -= 0.5 * square.shape[-1] * jnp.log(variance)
        share = jax.nn.softmax(log_p, axis=1)
        x0 = (append_dims(share, away) * (mu + append_dims(alpha * std**2 / variance, away) * away)).sum(1)
        epsilon = (append_dims(share * sigma / variance, away) * away).sum(1)
        v = append_dims(alpha[:, 0], x) * epsilon - append_dims(sigma[:, 0], x) * x0
        return Prediction(v, x, t, schedule, V())

    return denoise


def samples(key: jax.Array, count: int, means=MEANS, stds=STDS, weights=WEIGHTS) -> jax.Array:
    """`[count, ...]` exact draws of the data."""
    which, z = jax.random.split(key)
    means, stds = jnp.asarray(means), jnp.asarray(stds)
    k = jax.random.choice(which, len(stds), (count,), p=jnp.asarray(weights) / np.sum(weights))
    noise = jax.random.normal(z, (count, *means.shape[1:]), means.dtype)
    return means[k] + append_dims(stds[k], noise) * noise


def noised(key: jax.Array, schedule: Schedule, t: float, x0: jax.Array) -> jax.Array:
    """Exact draws of x_t for draws x0 of the data."""
    z = jax.random.normal(key, x0.shape, x0.dtype)
    return jnp.asarray(schedule.alpha(t), x0.dtype) * x0 + jnp.asarray(schedule.sigma(t), x0.dtype) * z


def gaussian_flow(schedule: Schedule, x: jax.Array, t: float, s: float, mean=0.3, std=0.25) -> jax.Array:
    """Where the probability flow takes x from time t to time s for data N(mean, std**2 I): quantile to quantile."""

    def marginal(time):
        alpha, sigma = float(schedule.alpha(time)), float(schedule.sigma(time))
        return alpha * mean, np.sqrt(alpha**2 * std**2 + sigma**2)

    (mean_t, std_t), (mean_s, std_s) = marginal(t), marginal(s)
    return mean_s + std_s * (x - mean_t) / std_t
