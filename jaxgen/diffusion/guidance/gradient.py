"""Guides by gradients of a number that says how well an image fits: a classifier's log p(y | x), a CLIP's similarity.

A guidance here is one of two ways, `OfNoisy` or `OfPredicted`, and one of two numbers, `ByClassifier` or
`jaxgen.diffusion.guidance.clip.BySimilarity`. The gradients run inside a sampler's loop, where gradients of
convolutions are slow on a CPU: give networks that are traced under
`jaxgen.networks.layers.convolution.gradients_in_loops`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxgen.diffusion.guidance.base import GuidanceInputs, Timed
from jaxgen.diffusion.prediction import Denoiser, Prediction
from jaxgen.diffusion.prediction_types import V
from jaxgen.errors import UserError

Fit = Callable[[jax.Array, jax.Array], jax.Array]  # (x [B, ...], t) -> the sum over the batch of each image's number


@dataclasses.dataclass(frozen=True, kw_only=True)
class ByGradient(Timed):
    """Guidance by the gradient of a number that says how well an image fits.

    Attributes:
      scale: the factor of the gradient.
    """

    config_name = ""  # a base of others: no config names it

    scale: float = 1.0

    called: ClassVar[str] = "Guidance"  # its name in messages
    wants: ClassVar[str] = ""  # what of `GuidanceInputs` says what an image should fit

    @property
    def steers(self) -> bool:
        """Returns whether the gradient has any effect."""
        return self.scale != 0

    @property
    def reads(self) -> frozenset[str]:
        return frozenset({"condition", self.wants} if self.steers else {"condition"})

    def fit(self, inputs: GuidanceInputs) -> Fit:
        """Returns the sum over the batch of the number, whose gradient in x is each image's own.

        Raises:
          UserError: the inputs lack what it needs.
        """
        raise NotImplementedError


@dataclasses.dataclass(frozen=True, kw_only=True)
class OfNoisy(ByGradient):
    """Takes the gradient at the noisy image x_t: the score gains scale times it, so epsilon loses sigma times that."""

    config_name = ""  # a base of others: no config names it

    def guide(self, inputs: GuidanceInputs) -> Denoiser:
        fit = self.fit(inputs)
        if not self.steers:
            return inputs.wanted

        def denoise(x: jax.Array, t: jax.Array) -> Prediction:
            now = inputs.wanted(x, t)
            change = _in_x0(now, self.scale * jax.grad(fit)(x, now.t))
            return _moved(now, jnp.where(self.inside(now), change, 0.0))

        return denoise


@dataclasses.dataclass(frozen=True, kw_only=True)
class OfPredicted(ByGradient):
    """Takes the gradient at the predicted x0 (Bansal et al. 2023, Algorithm 1), for networks that know clean images.

    Forward guidance (Eq. 6): epsilon -= scale sigma grad_x fit(x0(x)), with the gradient through the denoiser.
    Backward guidance (Eq. 7-9): x0 is moved by the Delta that gradient ascent of fit(x0 + Delta) finds from 0, with the
    gradient through the fit alone. Self-recurrence (Section 3.3) is an option of the sampler:
    `config.sampler.self_recurrence`.

    Attributes:
      scale: the factor of the forward gradient; 0 turns forward guidance off.
      backward_steps: the number of gradient steps of backward guidance; 0 turns it off.
      backward_rate: the size of these steps.
    """

    config_name = ""  # a base of others: no config names it

    backward_steps: int = 0
    backward_rate: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.backward_steps < 0:
            raise UserError(f"config.guidance.backward_steps is {self.backward_steps}; it is at least 0.")

    @property
    def steers(self) -> bool:
        return bool(self.scale or self.backward_steps)

    def guide(self, inputs: GuidanceInputs) -> Denoiser:
        fit = self.fit(inputs)
        if not self.steers:
            return inputs.wanted

        def of_x0(x: jax.Array, t: jax.Array) -> tuple[jax.Array, Prediction]:
            now = inputs.wanted(x, t)
            return fit(now.x0, now.t), now

        def denoise(x: jax.Array, t: jax.Array) -> Prediction:
            if self.scale:
                gradient, now = jax.grad(of_x0, has_aux=True)(x, t)
                change = _in_x0(now, self.scale * gradient)
            else:
                now = inputs.wanted(x, t)
                change = jnp.zeros_like(x)
            if self.backward_steps:
                x0 = now.x0

                def step(_: int, delta: jax.Array) -> jax.Array:
                    return delta + self.backward_rate * jax.grad(fit)(x0 + delta, now.t)

                change = change + jax.lax.fori_loop(0, self.backward_steps, step, jnp.zeros_like(x0))
            return _moved(now, jnp.where(self.inside(now), change, 0.0))

        return denoise


@dataclasses.dataclass(frozen=True, kw_only=True)
class ByClassifier(ByGradient):
    """Guidance by a classifier: the method builds its network, and its weights are the group `classifier`."""

    config_name = ""  # a base of others: no config names it

    network: nn.Module | None = None

    wants = "label"

    @property
    def required_groups(self) -> tuple[str, ...]:
        return ("classifier",)

    @property
    def entries(self) -> tuple[str, ...]:
        return ("label",)

    @property
    def classifier(self) -> nn.Module | None:
        return self.network

    def fit(self, inputs: GuidanceInputs) -> Fit:
        return _log_probability(inputs, self.called)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Classifier(ByClassifier, OfNoisy):
    """Classifier guidance (Dhariwal & Nichol 2021, Algorithm 2) has a classifier p(y | x_t) of noisy images.

    By Bayes' rule the score gains scale * grad log p(y | x_t), so epsilon loses sigma times that, which is right
    for every solver. With the exact classifier and scale 1 it is the exact conditional model.

    Attributes:
      scale: the factor of the gradient; above 1 it sharpens the classes.
      network: the classifier's network, `(x_t [B, ...], time [B]) -> logits`, where the method builds one; its weights
        are the group `classifier`.
    """

    called = "Classifier guidance"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Universal(ByClassifier, OfPredicted):
    """Universal guidance (Bansal et al. 2023, Algorithm 1) has a classifier of clean images, which sees predicted x0.

    Forward guidance (Eq. 6): epsilon -= scale sigma grad_x log p(y | x0(x)), with the gradient through the denoiser.
    Backward guidance (Eq. 7-9): x0 is moved by the Delta that gradient ascent of log p(y | x0 + Delta) finds from 0,
    with the gradient through the classifier alone. Self-recurrence (Section 3.3) is an option of the sampler:
    `config.sampler.self_recurrence`.

    Attributes:
      scale: the factor of the forward gradient; 0 turns forward guidance off.
      backward_steps: the number of gradient steps of backward guidance; 0 turns it off.
      backward_rate: the size of these steps.
      network: the classifier's network, `x0 [B, ...] -> logits`, where the method builds one; its weights are the group
        `classifier`.
    """

    called = "Universal guidance"


def _log_probability(inputs: GuidanceInputs, who: str) -> Fit:
    """Returns `(x, t) -> ` the sum over the batch of log p(label | x), whose gradient in x is each image's own."""
    classifier, label = inputs.classifier, inputs.label
    if classifier is None or label is None:
        raise UserError(f"{who} needs a classifier and the label that it should see.")

    def log_p(x: jax.Array, t: jax.Array) -> jax.Array:
        log = jax.nn.log_softmax(classifier(x, t))
        return jnp.take_along_axis(log, label[:, None], axis=1).sum()

    return log_p


def _in_x0(now: Prediction, gradient: jax.Array) -> jax.Array:
    """Returns the change of x0 that adds `gradient` to the score.

    It is sigma**2 / alpha times the gradient (epsilon -= sigma gradient). Where alpha is 0, x_t says nothing about the
    class and the gradient has no meaning: there is no change.
    """
    alpha = now.alpha
    factor = jnp.where(alpha > 0, now.sigma**2 / jnp.where(alpha > 0, alpha, 1.0), 0.0)
    return factor.astype(gradient.dtype) * gradient


def _moved(now: Prediction, change: jax.Array) -> Prediction:
    """Returns the prediction whose x0 is larger by `change` at the same x, as a v, which is exact at both ends."""
    value = now.v - (now.alpha**2 + now.sigma**2) / now.sigma * change
    return dataclasses.replace(now, value=value.astype(now.x.dtype), prediction_type=V())
