"""The denoising loss: in which form, with which weight; with a learned variance the hybrid loss."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import jax
import jax.numpy as jnp

from jaxgen.diffusion.bound import level_term
from jaxgen.diffusion.prediction import Denoiser, Prediction, PredictionType, append_dims, posterior, previous_level
from jaxgen.diffusion.schedule import Schedule
from jaxgen.errors import UserError

Weighting = Literal["simple", "snr", "truncated_snr", "min_snr", "p2", "edm", "sigmoid"]


def diffuse(schedule: Schedule, x0: jax.Array, t: jax.Array, noise: jax.Array) -> jax.Array:
    """A draw of q(x_t | x_0) = N(alpha x_0, sigma**2 I) (Ho et al. 2020, Eq. 4); `t` is `[B]`."""
    return append_dims(schedule.alpha(t), x0) * x0 + append_dims(schedule.sigma(t), x0) * noise


def weight(
    weighting: Weighting,
    schedule: Schedule,
    t: jax.Array,
    prediction_type: PredictionType,
    *,
    min_snr_gamma: float = 5.0,
    p2_gamma: float = 1.0,
    p2_k: float = 1.0,
    sigmoid_bias: float = 2.0,
) -> jax.Array:
    """`[B]` factors of the squared error of a prediction of this type.

    simple: 1, in whatever form the network predicts (Ho et al. 2020, Eq. 14, for epsilon; the flow-matching loss
      of Lipman et al. 2023, Eq. 23, for velocity).

    The others say what an error in the image costs, whatever the form; SNR is alpha**2 / sigma**2.

    snr: SNR for x0, which is 1 for epsilon.
    truncated_snr: max(SNR, 1) for x0 (Salimans & Ho 2022, Section 4).
    min_snr: min(SNR, gamma) for x0 (Hang et al. 2023, Section 3.4); for v, min(SNR, gamma) / (SNR + 1).
    p2: (k + SNR)**-gamma for epsilon (Choi et al. 2022, Eq. 8).
    edm: SNR + 1 / sigma_data**2 for x0, which is 1 for the form edm (Karras et al. 2022, Table 1: lambda).
    sigmoid: sigmoid(bias - log SNR) for epsilon (Kingma & Gao 2023, Section 5; Hoogeboom et al. 2024).

    Raises:
      UserError: for a weighting that does not exist, and a gamma of min_snr that is not positive.
    """
    if weighting not in Weighting.__args__:
        raise UserError(f"The weighting {weighting!r} is unknown; known are {', '.join(Weighting.__args__)}.")
    if weighting == "simple":
        return jnp.ones_like(t)
    log_snr = schedule.log_snr(t)
    snr = jnp.exp(log_snr)
    if weighting == "snr":
        of_x0 = snr
    elif weighting == "truncated_snr":
        of_x0 = jnp.maximum(snr, 1.0)
    elif weighting == "min_snr":
        if not min_snr_gamma > 0:
            raise UserError(f"The gamma of the weighting min_snr must be above 0, not {min_snr_gamma}.")
        of_x0 = jnp.minimum(snr, min_snr_gamma)
    elif weighting == "p2":
        of_x0 = snr * (p2_k + snr) ** -p2_gamma
    elif weighting == "edm":
        of_x0 = snr + schedule.sigma_data**-2
    else:
        of_x0 = snr * jax.nn.sigmoid(sigmoid_bias - log_snr)
    return of_x0 * x0_per(prediction_type, schedule, t)


def x0_per(prediction_type: PredictionType, schedule: Schedule, t: jax.Array) -> jax.Array:
    """`[B]` |error of x0|**2 for each |error of the form|**2, at a fixed x_t: the forms are linear in each other."""
    if prediction_type == "x0":
        return jnp.ones_like(t)
    if prediction_type == "posterior_mean":
        return posterior(schedule, t, previous_level(schedule, t), t)[1] ** -2
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    if prediction_type == "epsilon":
        return jnp.exp(-schedule.log_snr(t))
    if prediction_type == "score":
        return sigma**2 * jnp.exp(-schedule.log_snr(t))
    if prediction_type == "v":
        return (sigma / (alpha**2 + sigma**2)) ** 2
    if prediction_type == "velocity":
        alpha_rate, sigma_rate = schedule.rates(t)
        return (sigma / (alpha * sigma_rate - sigma * alpha_rate)) ** 2
    if prediction_type == "edm":
        return (sigma * schedule.sigma_data) ** 2 / ((alpha * schedule.sigma_data) ** 2 + sigma**2)
    known = ", ".join(PredictionType.__args__)
    raise UserError(f"The prediction type {prediction_type!r} is unknown; known are {known}.")


def denoising_loss(
    denoise: Denoiser,
    schedule: Schedule,
    x0: jax.Array,
    t: jax.Array,
    noise: jax.Array,
    prediction_type: PredictionType,
    weighting: Weighting = "simple",
    options: Mapping[str, float] | None = None,
    **condition: jax.Array,
) -> jax.Array:
    """`[B]` losses: the weighted mean over an example's values of the squared error in this prediction type.

    Args:
      x0: `[B, ...]` clean images in [-1, 1]. t: `[B]` in (0, 1]. noise: standard normal, like x0.
      options: hyper-parameters of the weighting, see `weight`.
    """
    now = denoise(diffuse(schedule, x0, t, noise), t, **condition)
    weights = weight(weighting, schedule, t, prediction_type, **(options or {}))
    return _squared_error(now, x0, noise, prediction_type) * weights


def hybrid_loss(
    denoise: Denoiser,
    schedule: Schedule,
    x0: jax.Array,
    t: jax.Array,
    noise: jax.Array,
    prediction_type: PredictionType,
    weighting: Weighting = "simple",
    options: Mapping[str, float] | None = None,
    vlb_weight: float = 1e-3,
    **condition: jax.Array,
) -> jax.Array:
    """`[B]` losses for a network that learns the variance: `denoising_loss` + vlb_weight L_vlb.

    Nichol & Dhariwal (2021), Eq. 16. L_vlb is the whole bound in bits per dimension as this one level lets it
    be guessed, `steps` times its term; the mean is not moved by it, the variance by nothing else. For uniform times.

    Args:
      x0: `[B, ...]` uint8 images as v / 127.5 - 1; else as in `denoising_loss`, one evaluation of the network.

    Raises:
      UserError: for a schedule without discrete levels, or a network that learns no variance.
    """
    if not schedule.steps:
        raise UserError("A learned variance is trained on discrete levels; use a discrete schedule, such as 'cosine'.")
    now = denoise(diffuse(schedule, x0, t, noise), t, **condition)
    weights = weight(weighting, schedule, t, prediction_type, **(options or {}))
    simple = _squared_error(now, x0, noise, prediction_type) * weights
    still = now.replace(value=jax.lax.stop_gradient(now.value))
    level = jnp.round(t * schedule.steps)
    return simple + vlb_weight * schedule.steps * level_term(still, x0, (level - 1) / schedule.steps, "learned")


def _squared_error(now: Prediction, x0: jax.Array, noise: jax.Array, prediction_type: PredictionType) -> jax.Array:
    """`[B]` means over an example's values of the squared error in this prediction type."""
    v = now.alpha * noise - now.sigma * x0
    error = getattr(now, prediction_type) - getattr(Prediction(v, now.x, now.t, now.schedule, "v"), prediction_type)
    return jnp.square(error).reshape(x0.shape[0], -1).mean(axis=1)
