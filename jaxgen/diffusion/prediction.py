"""Holds a prediction at (x, t), which can be read as every prediction type, and the denoisers that give it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Literal

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Float

from jaxgen.arrays import Array
from jaxgen.diffusion.prediction_types import X0, PredictionType, V, Velocity
from jaxgen.diffusion.process import added_noise_share, append_dims
from jaxgen.diffusion.schedules.base import Schedule
from jaxgen.errors import UserError


@flax.struct.dataclass
class Prediction:
    """Holds a prediction at (x, t).

    Arrays are float32 or wider.

    Attributes:
      value: `[B, ...]`, of the type `prediction_type`.
      x: `[B, ...]` the noisy images.
      t: `[B]` their times in [0, 1].
      schedule: the schedule that gives alpha and sigma.
      prediction_type: the type of `value`.
      log_variance: None, or `[B, ...]` where a network has learned the variance of the reverse step: a number in
        [-1, 1] that interpolates its logarithm from the posterior's (-1) to that of all added noise (1) (Nichol &
        Dhariwal 2021, Eq. 15).
    """

    value: jax.Array
    x: jax.Array
    t: jax.Array
    schedule: Schedule = flax.struct.field(pytree_node=False)
    prediction_type: PredictionType = flax.struct.field(pytree_node=False)
    log_variance: jax.Array | None = None

    @property
    def alpha(self) -> Float[Array, "#B *#shape"]:
        return append_dims(self.schedule.alpha(self.t), self.x)

    @property
    def sigma(self) -> Float[Array, "#B *#shape"]:
        return append_dims(self.schedule.sigma(self.t), self.x)

    @property
    def x0(self) -> Float[Array, "B *shape"]:
        """Returns the clean images."""
        return self.prediction_type.x0(self)

    @property
    def epsilon(self) -> Float[Array, "B *shape"]:
        """Returns the noise."""
        return self.prediction_type.epsilon(self)

    @property
    def v(self) -> Float[Array, "B *shape"]:
        """Returns alpha epsilon - sigma x0."""
        return self.to(V()).value

    @property
    def velocity(self) -> Float[Array, "B *shape"]:
        """Returns d x_t / dt."""
        return self.to(Velocity()).value

    def to(self, prediction_type: PredictionType) -> Prediction:
        """Returns the same prediction as a value of another type."""
        if prediction_type == self.prediction_type:
            return self
        value = prediction_type.value(self, self.x0, self.epsilon)
        return dataclasses.replace(self, value=value, prediction_type=prediction_type)

    def clip(self, low: float = -1.0, high: float = 1.0) -> Prediction:
        """Returns the prediction whose x0 is clipped; epsilon follows from it."""
        return dataclasses.replace(self, value=jnp.clip(self.x0, low, high), prediction_type=X0())


Denoiser = Callable[..., Prediction]  # (x, t) -> Prediction
Embed = Literal["time", "noise_level"]  # what a network embeds for a time t, see `embedded`


def denoiser(
    schedule: Schedule,
    prediction_type: PredictionType,
    network: Callable[..., Float[Array, "B *output"]],
    learned_variance: bool = False,
    embed: Embed = "time",
) -> Denoiser:
    """Makes a denoiser `(x, t, **condition) -> Prediction` from a network `(x, time, **condition) -> [B, ...]`.

    `t` is a scalar or `[B]` in [0, 1]; the network gets its `time`, float32 `[B]`, which `embedded` makes of t, and x
    as `prediction_type.network_input` scales it.

    Args:
      learned_variance: the network gives twice the channels of x; the second half is `log_variance`.
      embed: what the network's `time` is.

    Raises:
      UserError: for a type that says nothing about x0 where the schedule leaves no signal at t = 1, and for a
        network whose output does not fit the images.
    """
    check_prediction_type(schedule, prediction_type)

    def denoise(x: jax.Array, t: jax.Array, **condition: Array) -> Prediction:
        t = jnp.broadcast_to(jnp.asarray(t), x.shape[:1])
        now = Prediction(x, x, t, schedule, prediction_type)
        scaled = prediction_type.network_input(now)
        value = network(scaled.astype(x.dtype), embedded(schedule, t, embed), **condition)
        log_variance = None
        if learned_variance and value.shape == (*x.shape[:-1], 2 * x.shape[-1]):
            value, log_variance = jnp.split(value.astype(x.dtype), 2, axis=-1)
        elif value.shape != x.shape or learned_variance:
            twice = "twice the images' channels, for the learned variance"
            wanted = twice if learned_variance else "the images' channels"
            raise UserError(
                f"The network gives an array of shape {value.shape} for images of shape {x.shape}; "
                f"its out_channels must be {wanted}."
            )
        return dataclasses.replace(now, value=value.astype(x.dtype), log_variance=log_variance)

    return denoise


def embedded(schedule: Schedule, t: Float[Array, "*shape"], embed: Embed) -> Float[Array, "*shape"]:
    """Returns the number that a network embeds for the times t.

    With "time" it is `schedule.conditioning(t)`. With "noise_level" it is 1000 alpha(t), where alpha = sqrt(alpha_bar)
    is the share of the image in x_t (Saharia et al. 2021, "Image Super-Resolution via Iterative Refinement", section
    2.4; Chen et al. 2021, "WaveGrad", section 3.1), so that the network can be asked at any level of noise, whatever
    the schedule. Both are within 0..1000, which is the range that the networks' sinusoids are made for.
    """
    return schedule.conditioning(t) if embed == "time" else 1000.0 * schedule.alpha(t)


def check_embed(schedule: Schedule, embed: Embed) -> None:
    """Raises a UserError where a network that embeds the noise level could not tell two of the schedule's levels."""
    if embed == "noise_level" and schedule.alpha(0.0) == schedule.alpha(1.0):
        raise UserError(
            "config.method.embed='noise_level' tells the network the image's share alpha(t) of x_t, which is "
            f"{schedule.alpha(1.0):g} at all times of the schedule {type(schedule).__name__}; use embed='time', or a "
            "schedule that preserves the variance, such as 'cosine' or 'vp'."
        )


def check_prediction_type(schedule: Schedule, prediction_type: PredictionType) -> None:
    """Raises a UserError where predictions of this type cannot be turned into images under the schedule."""
    if prediction_type.needs_signal and schedule.alpha(1.0) < 1e-10:
        name = type(prediction_type).__name__.lower()
        raise UserError(
            f"The schedule leaves no signal at its end, where {name} says nothing about the image; use the prediction "
            "type v, x0, velocity or edm."
        )


def reverse_log_variance(now: Prediction, s: Float[Array, "..."]) -> Float[Array, "B *shape"]:
    """Returns `[B, ...]` logarithms of the learned variance of p(x_s | x_t) (Nichol & Dhariwal 2021, Eq. 15).

    `now.log_variance` interpolates between the log of the posterior's variance (-1) and the log of the variance of all
    noise added between s and t (1). At s = 0 the posterior has no variance; that of the step above takes its place.

    Raises:
      UserError: the network has not learned the variance.
    """
    if now.log_variance is None:
        raise UserError("The variance 'learned' needs a network that has learned it: config.method.learned_variance.")
    schedule, t = now.schedule, now.t
    s = jnp.broadcast_to(jnp.asarray(s, t.dtype), t.shape)
    above, below = jnp.where(s > 0, t, 2 * t), jnp.where(s > 0, s, t)
    low = jnp.log(added_noise_share(schedule, above, below)) + 2 * jnp.log(schedule.sigma(below))
    high = jnp.log(added_noise_share(schedule, t, s)) + 2 * jnp.log(schedule.sigma(t))
    share = (now.log_variance + 1) / 2
    return share * append_dims(high, now.x) + (1 - share) * append_dims(low, now.x)
