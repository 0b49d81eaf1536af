"""Guides away from a worse prediction: classifier-free guidance and autoguidance."""

from __future__ import annotations

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxgen.diffusion.guidance.base import GuidanceInputs, Timed
from jaxgen.diffusion.prediction import Denoiser, Prediction
from jaxgen.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Contrast(Timed):
    """Guides away from a worse prediction: (1 - scale) worse + scale wanted, of the type that the network predicts.

    At a given (x, t) a value of every type is x0 times one number plus x times another. Since the factors 1 - scale and
    scale sum to 1, predictions that are joined as values of any type give the same prediction.

    Attributes:
      scale: 1 is the wanted prediction, 0 the worse one.
      rescale: a number in [0, 1]: how far the standard deviation of the guided value over an image is moved back to
        that of the wanted value (Lin et al. 2023, Eq. 15-16). As there, the value is what the network predicts.
    """

    config_name = ""  # a base of others: no config names it

    scale: float = 1.0
    rescale: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.rescale <= 1:
            raise UserError(f"config.guidance.rescale is {self.rescale}; it must be in [0, 1].")

    @property
    def plain(self) -> bool:
        """Returns whether the guided prediction depends on nothing but the scale."""
        return self.interval == (0.0, 1.0) and not self.rescale

    def join(self, wanted: Prediction, worse: Prediction) -> Prediction:
        """Returns the guided prediction from two at the same (x, t); its learned variance is that of the wanted one."""
        scale = jnp.where(self.inside(wanted), self.scale, 1.0).astype(wanted.value.dtype)
        low = worse.to(wanted.prediction_type).value
        value = low + scale * (wanted.value - low)
        if self.rescale:
            axes = tuple(range(1, value.ndim))
            wide, want = value.std(axes, keepdims=True), wanted.value.std(axes, keepdims=True)
            factor = jnp.where(wide > 0, want / jnp.where(wide > 0, wide, 1.0), 1.0)  # Eq. 15
            value = (self.rescale * factor + 1 - self.rescale) * value  # Eq. 16
        return dataclasses.replace(wanted, value=value)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassifierFree(Contrast):
    """Classifier-free guidance (Ho & Salimans 2022, Eq. 6) is (1 - scale) unconditional + scale conditional.

    `scale` is that of Stable Diffusion; the paper's w is scale - 1. The network is called once on a doubled batch, and
    on a single batch where scale is 1 (conditional) or 0 (unconditional).
    """

    @property
    def reads(self) -> frozenset[str]:
        if self.scale == 1:
            return frozenset({"condition"})
        return frozenset({"null"} if self.scale == 0 and self.plain else {"condition", "null"})

    def guide(self, inputs: GuidanceInputs) -> Denoiser:
        if self.scale == 1:
            return inputs.wanted
        if inputs.null is None or not inputs.condition:
            raise UserError(
                "Classifier-free guidance needs a model that was trained with its condition and without; "
                "where guidances are composed, it comes first."
            )
        condition, null = inputs.condition, inputs.null
        if condition.keys() != null.keys():
            raise UserError(
                f"Classifier-free guidance needs null conditions for {sorted(condition)}, not for {sorted(null)}."
            )
        if self.scale == 0 and self.plain:
            return lambda x, t: inputs.denoise(x, t, **null)
        both = jax.tree.map(_interleaved, condition, null)

        def denoise(x: jax.Array, t: jax.Array) -> Prediction:
            t = jnp.broadcast_to(jnp.asarray(t), x.shape[:1])
            now = inputs.denoise(_interleaved(x, x), _interleaved(t, t), **both)
            pairs = jax.tree.map(lambda a: a.reshape(len(x), 2, *a.shape[1:]), now)
            return self.join(*(jax.tree.map(lambda a, i=i: a[:, i], pairs) for i in (0, 1)))

        return denoise


@dataclasses.dataclass(frozen=True, kw_only=True)
class Autoguidance(Contrast):
    """Guides away from a weaker model of the same data under the same condition (Karras et al. 2024, Eq. 3).

    The weaker model has fewer parameters, less training or both. Since the parameters differ, each is called once.

    Attributes:
      network: the network of the weaker model, with the same arguments as the model's own; None takes a network like
        the model's. Its weights are the group `weak`.
    """

    network: nn.Module | None = None

    @property
    def reads(self) -> frozenset[str]:
        return frozenset({"condition"})

    @property
    def required_groups(self) -> tuple[str, ...]:
        return ("weak",)

    @property
    def weak(self) -> nn.Module | None:
        return self.network

    def guide(self, inputs: GuidanceInputs) -> Denoiser:
        if self.scale == 1:
            return inputs.wanted
        weak = inputs.weak
        if weak is None:
            raise UserError("Autoguidance needs a weaker model of the same data.")
        return lambda x, t: self.join(inputs.wanted(x, t), weak(x, t, **inputs.condition))


def _interleaved(a: jax.Array, b: jax.Array) -> jax.Array:
    """Returns `[2 B, ...]`: a0, b0, a1, b1, ... Both copies of an image are so on the device that holds the image."""
    return jnp.stack([a, b], axis=1).reshape(2 * len(a), *a.shape[1:])
