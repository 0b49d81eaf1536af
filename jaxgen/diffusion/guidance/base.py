"""Holds the contract of a guidance, what it may use, and the two simplest: `Unguided` and `Compose`."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
from jaxtyping import Bool, Float

from jaxgen.arrays import Array
from jaxgen.diffusion.prediction import Denoiser, Prediction
from jaxgen.diffusion.process import append_dims
from jaxgen.diffusion.threshold import check_quantile, dynamic_threshold
from jaxgen.errors import UserError
from jaxgen.registry import config_name

Condition = dict[str, jax.Array]
Interval = tuple[float, float]
# What a guidance may read of its inputs beside the model: the fields of `GuidanceInputs` that users ask for.
EVERYTHING = frozenset({"condition", "null", "label"})
# (x [B, ...], t [B] or scalar) -> [B] numbers that are larger the better images fit; a clean network ignores t
Similarity = Callable[[Float[Array, "B *shape"], Float[Array, "..."]], Float[Array, " B"]]
# (x [B, ...], t [B] or scalar) -> [B, classes] logits; a clean classifier ignores t
ClassifierLogits = Callable[[Float[Array, "B *shape"], Float[Array, "..."]], Float[Array, "B classes"]]


class Towers(NamedTuple):
    """Holds the networks of a CLIP, and the entry of a batch that has the wanted text's tokens."""

    image: nn.Module
    text: nn.Module
    entry: str


@dataclasses.dataclass(frozen=True)
class GuidanceInputs:
    """Holds what a guidance may use; None where a model has no such thing.

    Attributes:
      denoise: `(x, t, **condition) -> Prediction`, the model.
      condition: the wanted condition: `{"label": int32 [B]}`, text, ...; empty for an unconditional model.
      null: the null condition, where the model was trained with conditions dropped, or a negative condition: arrays
        of the same names and shapes.
      classifier: logits of p(y | x_t), or of p(y | x_0) for `universal`.
      weak: a weaker model of the same data, `(x, t, **condition) -> Prediction`.
      label: int32 `[B]`, the class that a classifier should see.
      similarity: how similar images are to the wanted texts, by a CLIP, over its temperature.
    """

    denoise: Denoiser
    condition: Condition
    null: Condition | None = None
    classifier: ClassifierLogits | None = None
    weak: Denoiser | None = None
    label: jax.Array | None = None
    similarity: Similarity | None = None

    def wanted(self, x: Float[Array, "B *shape"], t: Float[Array, "..."]) -> Prediction:
        """Returns the model's prediction under its condition."""
        return self.denoise(x, t, **self.condition)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Guidance(abc.ABC):
    """This is the contract: `(inputs) -> denoise(x, t)`.

    A class gives `guide`.

    Attributes:
      threshold: the quantile of dynamic thresholding, such as 0.995, which is applied to the guided prediction; 0 turns
        it off.
    """

    threshold: float = 0.0

    def __post_init__(self) -> None:
        if self.threshold:
            check_quantile(self.threshold)

    @property
    def required_groups(self) -> tuple[str, ...]:
        """Returns the parameter groups other than the model's, which `config.init_from` gives: `classifier`, `weak`,
        or those of a CLIP."""
        return ()

    @property
    def entries(self) -> tuple[str, ...]:
        """Returns the entries of a batch that it needs beside the model's conditions."""
        return ()

    @property
    def classifier(self) -> nn.Module | None:
        """Returns the network of the classifier, where the guidance has one."""
        return None

    @property
    def weak(self) -> nn.Module | None:
        """Returns the network of the weaker model; None where it is the same as the model's."""
        return None

    @property
    def towers(self) -> Towers | None:
        """Returns the networks of the CLIP, where the guidance has one."""
        return None

    @property
    def sees_images(self) -> bool:
        """Returns whether networks other than the model look at what is diffused, which has to be images then."""
        return "classifier" in self.required_groups or self.towers is not None

    @property
    def reads(self) -> frozenset[str]:
        """Returns which of `condition`, `null`, `label` and `similarity` of its inputs change what it guides to, at its
        scale."""
        return EVERYTHING

    @property
    def unread(self) -> str:
        """Returns a clause that says why what is not in `reads` has no effect."""
        scale = getattr(self, "scale", None)
        of_scale = "" if scale is None else f" of scale {scale:g}"
        return f"the guidance {config_name(type(self))!r}{of_scale} leaves it out"

    @abc.abstractmethod
    def guide(self, inputs: GuidanceInputs) -> Denoiser:
        """Returns the guided denoiser, before thresholding."""

    def __call__(self, inputs: GuidanceInputs) -> Denoiser:
        guided = self.guide(inputs)
        if not self.threshold:
            return guided
        return lambda x, t: dynamic_threshold(guided(x, t), self.threshold)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Unguided(Guidance):
    """The model under its condition; with a `threshold`, its predictions are thresholded."""

    @property
    def reads(self) -> frozenset[str]:
        return frozenset({"condition"})

    def guide(self, inputs: GuidanceInputs) -> Denoiser:
        return inputs.wanted


@dataclasses.dataclass(frozen=True, kw_only=True)
class Timed(Guidance):
    """Guides at some noise levels only (Kynkäänniemi et al. 2024, Section 3).

    Attributes:
      interval: (low, high) in time; outside of it the prediction is that of the model under its condition. The
        guiding network is evaluated there too.
    """

    config_name = ""  # a base of others: no config names it

    interval: Interval = (0.0, 1.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        low, high = self.interval
        if not 0 <= low < high <= 1:
            raise UserError(f"config.guidance.interval is {self.interval}; it runs from low to high within [0, 1].")

    def inside(self, now: Prediction) -> Bool[Array, "..."]:
        """Returns whether each of the prediction's times is in the interval; the result broadcasts against `now.x`."""
        low, high = self.interval
        return append_dims((low <= now.t) & (now.t <= high), now.x)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Compose(Guidance):
    """Puts one guidance on top of another: `then` guides the denoiser that `first` has made.

    Nest it for more than two. Classifier-free guidance comes first, since the denoiser that it makes has its condition
    built in.
    """

    first: Guidance
    then: Guidance

    @property
    def required_groups(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*self.first.required_groups, *self.then.required_groups)))

    @property
    def classifier(self) -> nn.Module | None:
        return self.first.classifier or self.then.classifier

    @property
    def entries(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*self.first.entries, *self.then.entries)))

    @property
    def weak(self) -> nn.Module | None:
        return self.first.weak or self.then.weak

    @property
    def towers(self) -> Towers | None:
        return self.first.towers or self.then.towers

    @property
    def reads(self) -> frozenset[str]:
        return self.first.reads | (self.then.reads - {"condition", "null"})  # these are built into the first

    def guide(self, inputs: GuidanceInputs) -> Denoiser:
        inner = self.first(inputs)
        return self.then(dataclasses.replace(inputs, denoise=lambda x, t, **condition: inner(x, t), null=None))
