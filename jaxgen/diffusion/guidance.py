"""Guidance: functions from denoisers to denoisers, so that no sampler knows of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax

from jaxgen.diffusion.prediction import Denoiser

Condition = dict[str, jax.Array]
# (x [B, ...], t [B] or scalar) -> [B, classes] logits; a clean classifier ignores t
ClassifierLogits = Callable[[jax.Array, jax.Array], jax.Array]


@dataclasses.dataclass(frozen=True)
class Means:
    """What a guidance may draw on; None where a model has no such thing.

    Attributes:
      denoise: `(x, t, **condition) -> Prediction`, the model.
      condition: what is wanted: `{"label": int32 [B]}`, text, ...; empty for an unconditional model.
      null: the same for no condition at all, where the model was trained with conditions dropped; a negative
        condition may stand here.
      classifier: logits of p(y | x_t).
      weak: a weaker model of the same data, `(x, t, **condition) -> Prediction`.
      label: int32 `[B]`, the class that a classifier should see.
    """

    denoise: Denoiser
    condition: Condition
    null: Condition | None = None
    classifier: ClassifierLogits | None = None
    weak: Denoiser | None = None
    label: jax.Array | None = None


class Guidance:
    """The contract: `(means) -> denoise(x, t)`."""

    def __call__(self, means: Means) -> Denoiser:
        raise NotImplementedError
