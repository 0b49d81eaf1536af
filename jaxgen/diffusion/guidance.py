"""Guidance: functions from denoisers to denoisers, so that no sampler knows of it.

    guidance(means) -> denoise(x, t) -> Prediction

`means` holds what there is to draw on: the model, its conditions, a classifier, a weaker model. Each function at
the end of this module is a name for `config.guidance.name`; `compose` joins two, and so any number.

Guidance that takes gradients runs inside a sampler's loop, where those of convolutions are slow on a CPU: hand over
networks that are traced under `jaxgen.networks.convolution.gradients_in_loops`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxgen.diffusion.prediction import Denoiser, Prediction, like
from jaxgen.diffusion.threshold import check_quantile, dynamic_threshold
from jaxgen.errors import UserError

Condition = dict[str, jax.Array]
Interval = tuple[float, float]
# (x [B, ...], t [B] or scalar) -> [B, classes] logits; a clean classifier ignores t
ClassifierLogits = Callable[[jax.Array, jax.Array], jax.Array]


@dataclasses.dataclass(frozen=True)
class Means:
    """What a guidance may draw on; None where a model has no such thing.

    Attributes:
      denoise: `(x, t, **condition) -> Prediction`, the model.
      condition: what is wanted: `{"label": int32 [B]}`, text, ...; empty for an unconditional model.
      null: the same for no condition at all, where the model was trained with conditions dropped; a negative
        condition may stand here. Arrays of the same names and shapes.
      classifier: logits of p(y | x_t), or of p(y | x_0) for `universal`.
      weak: a weaker model of the same data, `(x, t, **condition) -> Prediction`.
      label: int32 `[B]`, the class that a classifier should see.
    """

    denoise: Denoiser
    condition: Condition
    null: Condition | None = None
    classifier: ClassifierLogits | None = None
    weak: Denoiser | None = None
    label: jax.Array | None = None

    def wanted(self, x: jax.Array, t: jax.Array) -> Prediction:
        """The model's prediction under its condition."""
        return self.denoise(x, t, **self.condition)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Guidance:
    """The contract: `(means) -> denoise(x, t)`. A guidance fills in `guide`.

    Attributes:
      threshold: 0, or the quantile of dynamic thresholding, such as 0.995, applied to the guided prediction.
    """

    threshold: float = 0.0

    def __post_init__(self) -> None:
        if self.threshold:
            check_quantile(self.threshold)

    @property
    def needs(self) -> tuple[str, ...]:
        """Parameter groups beside the model's own, to be given by `config.init_from`: `classifier`, `weak`."""
        return ()

    @property
    def classifier(self) -> nn.Module | None:
        """The network of the classifier that it needs."""
        return None

    def guide(self, means: Means) -> Denoiser:
        """The guided denoiser, before thresholding."""
        raise NotImplementedError

    def __call__(self, means: Means) -> Denoiser:
        guided = self.guide(means)
        if not self.threshold:
            return guided
        return lambda x, t: dynamic_threshold(guided(x, t), self.threshold)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Unguided(Guidance):
    """The model under its condition; of use for its threshold."""

    def guide(self, means: Means) -> Denoiser:
        return means.wanted


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Timed(Guidance):
    """Guidance at some noise levels only (Kynkäänniemi et al. 2024, Section 3).

    Attributes:
      interval: (low, high) in time; outside of it the prediction is that of the model under its condition. What
        guides is evaluated there too.
    """

    interval: Interval = (0.0, 1.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        low, high = self.interval
        if not 0 <= low < high <= 1:
            raise UserError(f"config.guidance.interval is {self.interval}; it runs from low to high within [0, 1].")

    def inside(self, now: Prediction) -> jax.Array:
        """Whether the prediction's times lie in the interval, to broadcast against it."""
        low, high = self.interval
        return like((low <= now.t) & (now.t <= high), now.x)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Contrast(_Timed):
    """Away from a worse prediction: (1 - scale) worse + scale wanted, in the form that the network predicts.

    At given (x, t) every form is x0 times a number plus x times another, and the factors sum to 1: in whichever
    form predictions are joined, the result is the same.

    Attributes:
      scale: 1 is the wanted prediction, 0 the worse one.
      rescale: share in [0, 1] of the way back to the standard deviation that the wanted prediction has over an
        image (Lin et al. 2023, Eq. 15-16); of the network's own form, as there.
    """

    scale: float = 1.0
    rescale: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.rescale <= 1:
            raise UserError(f"config.guidance.rescale is {self.rescale}; it lies in [0, 1].")

    @property
    def plain(self) -> bool:
        """Whether the scale is the whole story."""
        return self.interval == (0.0, 1.0) and not self.rescale

    def join(self, wanted: Prediction, worse: Prediction) -> Prediction:
        """Both at the same (x, t); the learned variance is that of the wanted one."""
        scale = jnp.where(self.inside(wanted), self.scale, 1.0).astype(wanted.value.dtype)
        worse = worse.to(wanted.kind).value
        value = worse + scale * (wanted.value - worse)
        if self.rescale:
            axes = tuple(range(1, value.ndim))
            wide, want = value.std(axes, keepdims=True), wanted.value.std(axes, keepdims=True)
            factor = jnp.where(wide > 0, want / jnp.where(wide > 0, wide, 1.0), 1.0)  # Eq. 15
            value = (self.rescale * factor + 1 - self.rescale) * value  # Eq. 16
        return wanted.replace(value=value)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassifierFree(_Contrast):
    """Classifier-free guidance (Ho & Salimans 2022, Eq. 6): (1 - scale) unconditional + scale conditional.

    `scale` is Stable Diffusion's; the paper's w is scale - 1. One call on a doubled batch, and a single one where
    scale is 1 (conditional) or 0 (unconditional).
    """

    def guide(self, means: Means) -> Denoiser:
        if self.scale == 1:
            return means.wanted
        if means.null is None or not means.condition:
            raise UserError(
                "Classifier-free guidance needs a model that was trained with its condition and without; "
                "where guidances are composed, it comes first."
            )
        condition, null = means.condition, means.null
        if condition.keys() != null.keys():
            raise UserError(
                f"Classifier-free guidance needs null conditions for {sorted(condition)}, not for {sorted(null)}."
            )
        if self.scale == 0 and self.plain:
            return lambda x, t: means.denoise(x, t, **null)
        both = jax.tree.map(_interleaved, condition, null)

        def denoise(x: jax.Array, t: jax.Array) -> Prediction:
            t = jnp.broadcast_to(jnp.asarray(t), x.shape[:1])
            now = means.denoise(_interleaved(x, x), _interleaved(t, t), **both)
            pairs = jax.tree.map(lambda a: a.reshape(len(x), 2, *a.shape[1:]), now)
            return self.join(*(jax.tree.map(lambda a, i=i: a[:, i], pairs) for i in (0, 1)))

        return denoise


@dataclasses.dataclass(frozen=True, kw_only=True)
class Autoguidance(_Contrast):
    """Away from a weaker model of the same data under the same condition (Karras et al. 2024, Eq. 3).

    The weaker one has fewer parameters, less training or both. Two calls, since the parameters differ.
    """

    @property
    def needs(self) -> tuple[str, ...]:
        return ("weak",)

    def guide(self, means: Means) -> Denoiser:
        if self.scale == 1:
            return means.wanted
        if means.weak is None:
            raise UserError("Autoguidance needs a weaker model of the same data.")
        return lambda x, t: self.join(means.wanted(x, t), means.weak(x, t, **means.condition))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Classifier(_Timed):
    """Classifier guidance (Dhariwal & Nichol 2021, Algorithm 2) with a classifier p(y | x_t) that has seen noise.

    By Bayes' rule the score gains scale * grad log p(y | x_t), so epsilon loses sigma times that: right for every
    solver. With the exact classifier and scale 1 it is the exact conditional model.

    Attributes:
      scale: of the gradient; above 1 sharpens the classes.
      network: of the classifier, `(x_t [B, ...], time [B]) -> logits`, where the method builds one; its weights
        are the group `classifier`.
    """

    scale: float = 1.0
    network: nn.Module | None = None

    @property
    def needs(self) -> tuple[str, ...]:
        return ("classifier",)

    @property
    def classifier(self) -> nn.Module | None:
        return self.network

    def guide(self, means: Means) -> Denoiser:
        log_p = _log_probability(means, "Classifier guidance")
        if self.scale == 0:
            return means.wanted

        def denoise(x: jax.Array, t: jax.Array) -> Prediction:
            now = means.wanted(x, t)
            change = _in_x0(now, self.scale * jax.grad(log_p)(x, now.t))
            return _moved(now, jnp.where(self.inside(now), change, 0.0))

        return denoise


@dataclasses.dataclass(frozen=True, kw_only=True)
class Universal(_Timed):
    """Universal guidance (Bansal et al. 2023, Algorithm 1): a classifier of clean images looks at the predicted x0.

    Forward (Eq. 6): epsilon -= scale sigma grad_x log p(y | x0(x)), the gradient taken through the denoiser.
    Backward (Eq. 7-9): x0 is moved by Delta, found by gradient ascent of log p(y | x0 + Delta) from 0, through the
    classifier alone. Self-recurrence (Section 3.3) is the sampler's: `config.sampler.recurrence`.

    Attributes:
      scale: of the forward gradient; 0 leaves it out.
      backward_steps: gradient steps of the backward search; 0 leaves it out.
      backward_rate: their step size.
      network: of the classifier, `x0 [B, ...] -> logits`, where the method builds one; its weights are the group
        `classifier`.
    """

    scale: float = 1.0
    backward_steps: int = 0
    backward_rate: float = 0.1
    network: nn.Module | None = None

    @property
    def needs(self) -> tuple[str, ...]:
        return ("classifier",)

    @property
    def classifier(self) -> nn.Module | None:
        return self.network

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.backward_steps < 0:
            raise UserError(f"config.guidance.backward_steps is {self.backward_steps}; it is at least 0.")

    def guide(self, means: Means) -> Denoiser:
        log_p = _log_probability(means, "Universal guidance")
        if self.scale == 0 and not self.backward_steps:
            return means.wanted

        def of_x0(x: jax.Array, t: jax.Array) -> tuple[jax.Array, Prediction]:
            now = means.wanted(x, t)
            return log_p(now.x0, now.t), now

        def denoise(x: jax.Array, t: jax.Array) -> Prediction:
            if self.scale:
                gradient, now = jax.grad(of_x0, has_aux=True)(x, t)
                change = _in_x0(now, self.scale * gradient)
            else:
                now = means.wanted(x, t)
                change = jnp.zeros_like(x)
            if self.backward_steps:
                x0 = now.x0

                def step(_: int, delta: jax.Array) -> jax.Array:
                    return delta + self.backward_rate * jax.grad(log_p)(x0 + delta, now.t)

                change = change + jax.lax.fori_loop(0, self.backward_steps, step, jnp.zeros_like(x0))
            return _moved(now, jnp.where(self.inside(now), change, 0.0))

        return denoise


@dataclasses.dataclass(frozen=True, kw_only=True)
class Compose(Guidance):
    """One guidance on top of another: `then` guides the denoiser that `first` has made.

    Nest it for more than two. Classifier-free guidance comes first, since what it makes has its condition within.
    """

    first: Guidance
    then: Guidance

    @property
    def needs(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*self.first.needs, *self.then.needs)))

    @property
    def classifier(self) -> nn.Module | None:
        return self.first.classifier or self.then.classifier

    def guide(self, means: Means) -> Denoiser:
        inner = self.first(means)
        return self.then(dataclasses.replace(means, denoise=lambda x, t, **condition: inner(x, t), null=None))


def _interleaved(a: jax.Array, b: jax.Array) -> jax.Array:
    """`[2 B, ...]`: a0, b0, a1, b1, ...; so each image's two are on the device that holds the image."""
    return jnp.stack([a, b], axis=1).reshape(2 * len(a), *a.shape[1:])


def _log_probability(means: Means, who: str) -> ClassifierLogits:
    """`(x, t) -> ` the sum over the batch of log p(label | x): its gradient is each image's own."""
    if means.classifier is None or means.label is None:
        raise UserError(f"{who} needs a classifier and the label that it should see.")

    def log_p(x: jax.Array, t: jax.Array) -> jax.Array:
        log = jax.nn.log_softmax(means.classifier(x, t))
        return jnp.take_along_axis(log, means.label[:, None], axis=1).sum()

    return log_p


def _in_x0(now: Prediction, gradient: jax.Array) -> jax.Array:
    """The change of x0 that adds `gradient` to the score: sigma**2 / alpha times it (epsilon -= sigma gradient).

    Where alpha is 0, x_t says nothing about the class and the gradient has no meaning: there is no change.
    """
    alpha = now.alpha
    factor = jnp.where(alpha > 0, now.sigma**2 / jnp.where(alpha > 0, alpha, 1.0), 0.0)
    return factor.astype(gradient.dtype) * gradient


def _moved(now: Prediction, change: jax.Array) -> Prediction:
    """The prediction whose x0 is larger by `change`, at the same x; in the form v, sound at both ends."""
    value = now.v - (now.alpha**2 + now.sigma**2) / now.sigma * change
    return now.replace(value=value.astype(now.x.dtype), kind="v")


def unguided(threshold: float = 0.0) -> Unguided:
    """See `Unguided`."""
    return Unguided(threshold=threshold)


def classifier_free(
    scale: float = 1.0, interval: Interval = (0.0, 1.0), rescale: float = 0.0, threshold: float = 0.0
) -> ClassifierFree:
    """See `ClassifierFree`."""
    return ClassifierFree(scale=scale, interval=interval, rescale=rescale, threshold=threshold)


def autoguidance(
    scale: float = 1.0, interval: Interval = (0.0, 1.0), rescale: float = 0.0, threshold: float = 0.0
) -> Autoguidance:
    """See `Autoguidance`."""
    return Autoguidance(scale=scale, interval=interval, rescale=rescale, threshold=threshold)


def classifier(
    network: nn.Module, scale: float = 1.0, interval: Interval = (0.0, 1.0), threshold: float = 0.0
) -> Classifier:
    """See `Classifier`."""
    return Classifier(scale=scale, network=network, interval=interval, threshold=threshold)


def universal(
    network: nn.Module,
    scale: float = 1.0,
    backward_steps: int = 0,
    backward_rate: float = 0.1,
    interval: Interval = (0.0, 1.0),
    threshold: float = 0.0,
) -> Universal:
    """See `Universal`."""
    backward = {"backward_steps": backward_steps, "backward_rate": backward_rate}
    return Universal(scale=scale, network=network, **backward, interval=interval, threshold=threshold)


def compose(first: Guidance, then: Guidance, threshold: float = 0.0) -> Compose:
    """See `Compose`."""
    return Compose(first=first, then=then, threshold=threshold)
