"""Guides by gradients of a classifier's log p(y | x): classifier guidance and universal guidance.

The gradients run inside a sampler's loop, where gradients of convolutions are slow on a CPU: give networks that are
traced under `jaxgen.networks.layers.convolution.gradients_in_loops`.
"""

from __future__ import annotations

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxgen.diffusion.guidance.base import ClassifierLogits, GuidanceInputs, Timed
from jaxgen.diffusion.prediction import Denoiser, Prediction
from jaxgen.diffusion.prediction_types import V
from jaxgen.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class ByClassifier(Timed):
    """Guidance by a classifier: the method builds its network, and its weights are the group `classifier`."""

    config_name = ""  # a base of others: no config names it

    network: nn.Module | None = None

    @property
    def required_groups(self) -> tuple[str, ...]:
        return ("classifier",)

    @property
    def classifier(self) -> nn.Module | None:
        return self.network


@dataclasses.dataclass(frozen=True, kw_only=True)
class Classifier(ByClassifier):
    """Classifier guidance (Dhariwal & Nichol 2021, Algorithm 2) has a classifier p(y | x_t) of noisy images.

    By Bayes' rule the score gains scale * grad log p(y | x_t), so epsilon loses sigma times that, which is right
    for every solver. With the exact classifier and scale 1 it is the exact conditional model.

    Attributes:
      scale: the factor of the gradient; above 1 it sharpens the classes.
      network: the classifier's network, `(x_t [B, ...], time [B]) -> logits`, where the method builds one; its weights
        are the group `classifier`.
    """

    scale: float = 1.0

    @property
    def reads(self) -> frozenset[str]:
        return frozenset({"condition", "label"} if self.scale else {"condition"})

    def guide(self, inputs: GuidanceInputs) -> Denoiser:
        log_p = _log_probability(inputs, "Classifier guidance")
        if self.scale == 0:
            return inputs.wanted

        def denoise(x: jax.Array, t: jax.Array) -> Prediction:
            now = inputs.wanted(x, t)
            change = _in_x0(now, self.scale * jax.grad(log_p)(x, now.t))
            return _moved(now, jnp.where(self.inside(now), change, 0.0))

        return denoise


@dataclasses.dataclass(frozen=True, kw_only=True)
class Universal(ByClassifier):
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

    scale: float = 1.0
    backward_steps: int = 0
    backward_rate: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.backward_steps < 0:
            raise UserError(f"config.guidance.backward_steps is {self.backward_steps}; it is at least 0.")

    @property
    def reads(self) -> frozenset[str]:
        return frozenset({"condition", "label"} if self.scale or self.backward_steps else {"condition"})

    def guide(self, inputs: GuidanceInputs) -> Denoiser:
        log_p = _log_probability(inputs, "Universal guidance")
        if self.scale == 0 and not self.backward_steps:
            return inputs.wanted

        def of_x0(x: jax.Array, t: jax.Array) -> tuple[jax.Array, Prediction]:
            now = inputs.wanted(x, t)
            return log_p(now.x0, now.t), now

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
                    return delta + self.backward_rate * jax.grad(log_p)(x0 + delta, now.t)

                change = change + jax.lax.fori_loop(0, self.backward_steps, step, jnp.zeros_like(x0))
            return _moved(now, jnp.where(self.inside(now), change, 0.0))

        return denoise


def _log_probability(inputs: GuidanceInputs, who: str) -> ClassifierLogits:
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
