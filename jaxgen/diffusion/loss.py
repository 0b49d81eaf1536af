"""The denoising loss: at which times, in which form, with which weight."""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp

from jaxgen.diffusion.prediction import Denoiser, Kind, Prediction, like
from jaxgen.diffusion.schedule import Schedule
from jaxgen.errors import UserError

Weighting = Literal["simple", "snr", "truncated_snr"]


def sample_times(key: jax.Array, count: int, schedule: Schedule) -> jax.Array:
    """`[count]` uniform times: the levels 1/steps .. 1 of a discrete schedule, else (0, 1]."""
    if schedule.steps:
        return jax.random.randint(key, (count,), 1, schedule.steps + 1) / schedule.steps
    return 1.0 - jax.random.uniform(key, (count,))


def diffuse(schedule: Schedule, x0: jax.Array, t: jax.Array, noise: jax.Array) -> jax.Array:
    """A draw of q(x_t | x_0) = N(alpha x_0, sigma**2 I) (Ho et al. 2020, Eq. 4); `t` is `[B]`."""
    return like(schedule.alpha(t), x0) * x0 + like(schedule.sigma(t), x0) * noise


def weight(weighting: Weighting, schedule: Schedule, t: jax.Array, kind: Kind) -> jax.Array:
    """`[B]` factors of the squared error of a prediction of form `kind`.

    simple: 1, in whatever form the network predicts (Ho et al. 2020, Eq. 14, for epsilon).
    snr: the squared error of x0 times alpha**2 / sigma**2, which is that of epsilon, whatever the form.
    truncated_snr: the same with max(SNR, 1) (Salimans & Ho 2022, Eq. 8).
    """
    if weighting == "simple":
        return jnp.ones_like(t)
    snr, sigma2 = jnp.exp(schedule.log_snr(t)), schedule.sigma(t) ** 2
    if kind == "posterior_mean":
        raise UserError(f"The weighting {weighting!r} is not defined for posterior_mean; use 'simple'.")
    # |x0 - x0_hat|**2 for each |form - form_hat|**2, at fixed x_t
    of_x0 = {"x0": 1.0, "epsilon": 1 / snr, "v": sigma2, "score": sigma2 / snr}[kind]
    return of_x0 * (snr if weighting == "snr" else jnp.maximum(snr, 1.0))


def denoising_loss(
    denoise: Denoiser,
    schedule: Schedule,
    x0: jax.Array,
    t: jax.Array,
    noise: jax.Array,
    kind: Kind,
    weighting: Weighting = "simple",
    **condition: jax.Array,
) -> jax.Array:
    """`[B]` losses: the weighted mean over an example's values of the squared error in the form `kind`.

    Args:
      x0: `[B, ...]` clean images in [-1, 1]. t: `[B]` in (0, 1]. noise: standard normal, like x0.
    """
    x = diffuse(schedule, x0, t, noise)
    v = like(schedule.alpha(t), x0) * noise - like(schedule.sigma(t), x0) * x0
    target = getattr(Prediction(v, x, t, schedule, "v"), kind)
    error = getattr(denoise(x, t, **condition), kind) - target
    return weight(weighting, schedule, t, kind) * jnp.square(error).reshape(x0.shape[0], -1).mean(axis=1)
