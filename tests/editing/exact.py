"""Gaussian data, whose denoiser is known in closed form, and keys, for the tests of editing."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.diffusion import schedules
from jaxgen.diffusion.prediction import Prediction
from jaxgen.diffusion.prediction_types import Epsilon

LINEAR = schedules.Linear()
SMOOTH = schedules.ContinuousCosine()
MEAN, STD = 0.3, 0.25


def gaussian(schedule, mean=MEAN, std=STD):
    """The exact denoiser of data N(mean, std**2 I), in the form epsilon, finite at sigma = 0."""

    def denoise(x, t):
        t = jnp.broadcast_to(jnp.asarray(t, x.dtype), x.shape[:1])
        alpha, sigma = (v.reshape(-1, *[1] * (x.ndim - 1)) for v in (schedule.alpha(t), schedule.sigma(t)))
        epsilon = sigma * (x - alpha * mean) / (alpha**2 * std**2 + sigma**2)
        return Prediction(epsilon, x, t, schedule, Epsilon())

    return denoise


def correlated(schedule, covariance):
    """The exact denoiser of data N(0, covariance) for `[B, D]`, in the form epsilon."""
    covariance = np.asarray(covariance)

    def denoise(x, t):
        t = jnp.broadcast_to(jnp.asarray(t, x.dtype), x.shape[:1])
        alpha, sigma = schedule.alpha(t)[:, None, None], schedule.sigma(t)[:, None, None]
        marginal = alpha**2 * covariance + sigma**2 * np.eye(len(covariance))
        epsilon = sigma[..., 0] * jnp.linalg.solve(marginal, x[..., None])[..., 0]
        return Prediction(epsilon, x, t, schedule, Epsilon())

    return denoise


def modes(schedule, at=0.6, std=0.1):
    """The exact denoiser of two equal modes at -at and at, each N(., std**2), per value; not linear in x."""

    def denoise(x, t):
        t = jnp.broadcast_to(jnp.asarray(t, x.dtype), x.shape[:1])
        alpha, sigma = (v.reshape(-1, *[1] * (x.ndim - 1)) for v in (schedule.alpha(t), schedule.sigma(t)))
        variance = alpha**2 * std**2 + sigma**2
        centre = alpha * at * jnp.tanh(alpha * at * x / variance)  # the mean of x_t's component, given x_t
        return Prediction(sigma * (x - centre) / variance, x, t, schedule, Epsilon())

    return denoise


def make_keys(count, seed=0):
    """`[count]` keys, the first ones of more."""
    return jax.vmap(lambda i: jax.random.fold_in(jax.random.key(seed), i))(jnp.arange(count))
