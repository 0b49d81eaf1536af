"""Applies Bayes' rule: p(y | x) from a conditional model, and p(x | y) from an unconditional one and a classifier."""

from __future__ import annotations

import dataclasses
from typing import Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, Key

from jaxgen.arrays import Array
from jaxgen.diffusion.guidance import Classifier, ClassifierLogits, GuidanceInputs
from jaxgen.diffusion.noise import per_image_noise
from jaxgen.diffusion.prediction import Denoiser
from jaxgen.diffusion.process import diffuse
from jaxgen.diffusion.schedules import Schedule
from jaxgen.diffusion.spacing import DARKEST
from jaxgen.editing.model import DiffusionModel
from jaxgen.errors import UserError

Weighting = Literal["bound", "uniform"]


def class_log_likelihoods(
    denoise: Denoiser,
    schedule: Schedule,
    x0: Float[Array, "B *shape"],
    keys: Key[Array, "B"],
    num_classes: int,
    draws: int = 64,
    weighting: Weighting = "bound",
) -> Float[Array, "B classes"]:
    """Returns `[B, num_classes]` log p(x0 | y) up to a number for each image (Li et al. 2023, Algorithm 1).

    It measures how well each class explains the noise in noisy copies of an image. All classes see the same times and
    noises, which reduces the variance of their differences. An image costs `draws` times `num_classes` evaluations.

    Args:
      denoise: `(x, t, label=int32 [B]) -> Prediction`.
      x0: `[B, ...]` images in [-1, 1].
      keys: `[B]` random keys, one for each image.
      draws: the number of times and noises for each image.
      weighting: `bound` gives nats of the variational bound in continuous time, -1/2 of the integral of
        |epsilon - epsilon_hat|**2 over log_snr (Kingma et al. 2021, Eq. 17); with exact denoisers these are the exact
        log-likelihoods. `uniform` gives minus the mean over uniform times of the squared error of epsilon, summed
        over an image's values, as Li et al. do; it orders the classes and gives no probabilities.

    Raises:
      UserError: there are fewer than two classes or no draws, or the weighting is unknown.
    """
    if num_classes < 2 or draws < 1:
        raise UserError("Classification by a diffusion model needs at least two classes and one draw.")
    if weighting not in get_args(Weighting):
        raise UserError(f"The weighting {weighting!r} is unknown; known are {', '.join(get_args(Weighting))}.")
    dark = max(float(schedule.log_snr(1.0)), DARKEST)
    # at t = 0 of some schedules there is no noise at all
    bright = float(schedule.log_snr(np.float64(schedule.t_min)))
    count = len(x0)
    labels = jnp.repeat(jnp.arange(num_classes, dtype=jnp.int32), count)

    def error(index: jax.Array) -> jax.Array:
        # one draw from each of equal strata
        share = jax.vmap(lambda key: jax.random.uniform(jax.random.fold_in(key, 2 * index)))(keys)
        share = (index + share) / draws
        if weighting == "bound":
            t = schedule.t_from_log_snr(bright + share * (dark - bright)).astype(x0.dtype)
        else:
            t = schedule.t_min + share * (1 - schedule.t_min)
            t = jnp.ceil(t * schedule.steps - 1e-3) / schedule.steps if schedule.steps else t
        z = per_image_noise(keys, 2 * index + 1, x0.shape[1:]).astype(x0.dtype)
        x = diffuse(schedule, x0, t, z)
        repeated = (jnp.tile(a, (num_classes,) + (1,) * (a.ndim - 1)) for a in (x, t))
        wrong = denoise(*repeated, label=labels).epsilon - jnp.tile(z, (num_classes,) + (1,) * (z.ndim - 1))
        return jnp.square(wrong).reshape(num_classes, count, -1).sum(axis=2).T

    mean = jax.lax.map(error, jnp.arange(draws)).mean(axis=0)
    return -0.5 * (bright - dark) * mean if weighting == "bound" else -mean


def class_log_probabilities(
    denoise: Denoiser,
    schedule: Schedule,
    x0: Float[Array, "B *shape"],
    keys: Key[Array, "B"],
    num_classes: int,
    draws: int = 64,
    log_prior: Float[Array, "classes"] | None = None,
) -> Float[Array, "B classes"]:
    """Returns `[B, num_classes]` log p(y | x0) = log p(x0 | y) + log p(y) - log p(x0): the diffusion classifier.

    Args:
      log_prior: `[num_classes]` log p(y); None for equal classes. The rest as in `class_log_likelihoods`.
    """
    likelihoods = class_log_likelihoods(denoise, schedule, x0, keys, num_classes, draws)
    return jax.nn.log_softmax(likelihoods + (0.0 if log_prior is None else log_prior), axis=1)


def given_label(
    denoise: Denoiser, classifier: ClassifierLogits, label: Int[Array, "B"], scale: float = 1.0
) -> Denoiser:
    """Returns the denoiser of p(x | y), proportional to p(x) p(y | x)**scale (Dhariwal & Nichol 2021, Section 4).

    Args:
      denoise: `(x, t) -> Prediction`, of p(x).
      classifier: `(x [B, ...], t) -> [B, classes]` logits of p(y | x_t), of noisy images.
      label: int32 `[B]`, y.
    """
    return Classifier(scale=scale)(GuidanceInputs(denoise, {}, classifier=classifier, label=label))


def sample_given_label(
    model: DiffusionModel,
    classifier: ClassifierLogits,
    label: Int[Array, "B"],
    keys: Key[Array, "B"],
    shape: tuple[int, ...],
    scale: float = 1.0,
) -> Float[Array, "B *shape"]:
    """Returns `[B, *shape]` draws of p(x | y) from a model that knows no labels; see `given_label`."""
    guided = dataclasses.replace(model, denoise=given_label(model.denoise, classifier, label, scale))
    return guided.draw(guided.start(keys, shape), keys, guided.times)
