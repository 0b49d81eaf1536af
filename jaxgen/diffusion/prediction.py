"""What a network predicts about the noise in x_t, and the one place that converts between the forms.

With `x = alpha x0 + sigma epsilon`, every form below fixes x0 and epsilon:

    x0              the clean image
    epsilon         the noise (Ho et al. 2020, Eq. 11)
    v               alpha epsilon - sigma x0 (Salimans & Ho 2022, Section 4)
    score           grad log p(x_t) = -epsilon / sigma (Song et al. 2021, Eq. 7)
    posterior_mean  the mean of q(x_{t-1} | x_t, x0), one level below (Ho et al. 2020, Eq. 7)
    velocity        d x_t / dt = alpha' x0 + sigma' epsilon; epsilon - x0 on straight paths (Lipman et al. 2023)
    edm             F of Karras et al. (2022), Eq. 7: x0 = c_skip x + c_out F, of unit variance at every noise level
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.diffusion.schedule import Schedule
from jaxgen.errors import UserError

PredictionType = Literal["x0", "epsilon", "v", "score", "posterior_mean", "velocity", "edm"]


@flax.struct.dataclass
class Prediction:
    """A prediction at (x, t), readable in every form. Arrays are float32 or wider.

    Attributes:
      value: `[B, ...]` of the type `prediction_type`.
      x: `[B, ...]` the noisy images that it is about.
      t: `[B]` their times in [0, 1].
      schedule: what alpha and sigma are read from.
      prediction_type: what `value` is.
      log_variance: None, or `[B, ...]`, where a network has learned it: the place of the logarithm of the reverse
        step's variance between its bounds, -1 the small and 1 the large one (Nichol & Dhariwal 2021, Eq. 15).
    """

    value: jax.Array
    x: jax.Array
    t: jax.Array
    schedule: Schedule = flax.struct.field(pytree_node=False)
    prediction_type: PredictionType = flax.struct.field(pytree_node=False)
    log_variance: jax.Array | None = None

    @property
    def alpha(self) -> jax.Array:
        return append_dims(self.schedule.alpha(self.t), self.x)

    @property
    def sigma(self) -> jax.Array:
        return append_dims(self.schedule.sigma(self.t), self.x)

    @property
    def x0(self) -> jax.Array:
        alpha, sigma, value = self.alpha, self.sigma, self.value
        if self.prediction_type == "x0":
            return value
        if self.prediction_type == "v":  # exact at both ends: no division by a vanishing alpha or sigma
            return (alpha * self.x - sigma * value) / (alpha**2 + sigma**2)
        if self.prediction_type == "velocity":
            alpha_rate, sigma_rate = self._rates
            return (sigma_rate * self.x - sigma * value) / (alpha * sigma_rate - sigma * alpha_rate)
        if self.prediction_type == "edm":
            data, norm = self.schedule.sigma_data, self._edm_norm
            return alpha * (data / norm) ** 2 * self.x + sigma * data / norm * value
        if self.prediction_type == "posterior_mean":
            of_x, of_x0, _ = posterior(self.schedule, self.t, previous_level(self.schedule, self.t), self.x)
            return (value - of_x * self.x) / of_x0
        return (self.x - sigma * self.epsilon) / alpha

    @property
    def epsilon(self) -> jax.Array:
        alpha, sigma, value = self.alpha, self.sigma, self.value
        if self.prediction_type == "epsilon":
            return value
        if self.prediction_type == "score":
            return -sigma * value
        if self.prediction_type == "v":
            return (sigma * self.x + alpha * value) / (alpha**2 + sigma**2)
        if self.prediction_type == "velocity":
            alpha_rate, sigma_rate = self._rates
            return (alpha * value - alpha_rate * self.x) / (alpha * sigma_rate - sigma * alpha_rate)
        if self.prediction_type == "edm":
            data, norm = self.schedule.sigma_data, self._edm_norm
            return sigma / norm**2 * self.x - alpha * data / norm * value
        return (self.x - alpha * self.x0) / sigma

    @property
    def v(self) -> jax.Array:
        return self.value if self.prediction_type == "v" else self.alpha * self.epsilon - self.sigma * self.x0

    @property
    def score(self) -> jax.Array:
        return self.value if self.prediction_type == "score" else -self.epsilon / self.sigma

    @property
    def posterior_mean(self) -> jax.Array:
        if self.prediction_type == "posterior_mean":
            return self.value
        of_x, of_x0, _ = posterior(self.schedule, self.t, previous_level(self.schedule, self.t), self.x)
        return of_x * self.x + of_x0 * self.x0

    @property
    def velocity(self) -> jax.Array:
        if self.prediction_type == "velocity":
            return self.value
        alpha_rate, sigma_rate = self._rates
        return alpha_rate * self.x0 + sigma_rate * self.epsilon

    @property
    def edm(self) -> jax.Array:
        if self.prediction_type == "edm":
            return self.value
        data, norm = self.schedule.sigma_data, self._edm_norm
        return (self.x0 - self.alpha * (data / norm) ** 2 * self.x) * norm / (self.sigma * data)

    @property
    def _rates(self) -> tuple[jax.Array, jax.Array]:
        alpha_rate, sigma_rate = self.schedule.rates(self.t)
        return append_dims(alpha_rate, self.x), append_dims(sigma_rate, self.x)

    @property
    def _edm_norm(self) -> jax.Array:
        """The standard deviation of x_t for data of standard deviation sigma_data."""
        return jnp.sqrt((self.alpha * self.schedule.sigma_data) ** 2 + self.sigma**2)

    def to(self, prediction_type: PredictionType) -> Prediction:
        """The same prediction held in another form."""
        if prediction_type not in PredictionType.__args__:
            known = ", ".join(PredictionType.__args__)
            raise UserError(f"The prediction type {prediction_type!r} is unknown; known are {known}.")
        return self.replace(value=getattr(self, prediction_type), prediction_type=prediction_type)

    def clip(self, low: float = -1.0, high: float = 1.0) -> Prediction:
        """The prediction whose x0 is clipped; epsilon follows from it."""
        return self.replace(value=jnp.clip(self.x0, low, high), prediction_type="x0")


Denoiser = Callable[..., Prediction]  # (x, t) -> Prediction


def denoiser(
    schedule: Schedule,
    prediction_type: PredictionType,
    network: Callable[..., jax.Array],
    learned_variance: bool = False,
) -> Denoiser:
    """A denoiser `(x, t, **condition) -> Prediction` from a network `(x, time, **condition) -> [B, ...]`.

    `t` is a scalar or `[B]` in [0, 1]; the network gets `schedule.conditioning(t)`, float32 `[B]`, and x times
    `schedule.input_scale(t)`, or, where it predicts in the form `edm`, x of unit variance.

    Args:
      learned_variance: the network gives twice the channels of x; the second half is `log_variance`.

    Raises:
      UserError: for a form that says nothing about x0 where the schedule leaves no signal at t = 1, and for a
        network whose output does not fit the images.
    """
    check_prediction_type(schedule, prediction_type)

    def denoise(x: jax.Array, t: jax.Array, **condition: Any) -> Prediction:
        t = jnp.broadcast_to(jnp.asarray(t), x.shape[:1])
        now = Prediction(x, x, t, schedule, prediction_type)
        scaled = x / now._edm_norm if prediction_type == "edm" else append_dims(schedule.input_scale(t), x) * x
        value = network(scaled.astype(x.dtype), schedule.conditioning(t), **condition)
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
        return now.replace(value=value.astype(x.dtype), log_variance=log_variance)

    return denoise


def check_prediction_type(schedule: Schedule, prediction_type: PredictionType) -> None:
    """Raises a UserError where predictions of this form cannot be turned into images under the schedule."""
    if prediction_type in ("epsilon", "score") and schedule.alpha(1.0) < 1e-10:
        raise UserError(
            f"The schedule leaves no signal at its end, where {prediction_type} says nothing about the image; "
            "use the prediction type v, x0, velocity or edm."
        )


def posterior(schedule: Schedule, t: jax.Array, s: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """q(x_s | x_t, x_0) for s < t: `mean = of_x x_t + of_x0 x_0`, and its variance.

    Ho et al. (2020), Eqs. 6-7, for any pair of times (Kingma et al. 2021, Appendix A). Returns three arrays that
    broadcast against `x`. At s = 0 without noise the mean is x_0 and the variance 0.
    """
    t, s = jnp.asarray(t), jnp.asarray(s)
    alpha_t, alpha_s = append_dims(schedule.alpha(t), x), append_dims(schedule.alpha(s), x)
    sigma_t, sigma_s = append_dims(schedule.sigma(t), x), append_dims(schedule.sigma(s), x)
    fresh = append_dims(added_noise_share(schedule, t, s), x)
    return alpha_t / alpha_s * (sigma_s / sigma_t) ** 2, alpha_s * fresh, fresh * sigma_s**2


def added_noise_share(schedule: Schedule, t: jax.Array, s: jax.Array) -> jax.Array:
    """The share of sigma(t)**2 that was added between s and t: 1 - SNR(t) / SNR(s), in [0, 1]."""
    change = schedule.log_snr(t) - schedule.log_snr(s)
    return -(jnp if isinstance(change, jax.Array) else np).expm1(change)


def previous_level(schedule: Schedule, t: jax.Array) -> jax.Array:
    """One discrete noise level below t; never below 0."""
    if not schedule.steps:
        raise UserError("The posterior mean is a prediction for discrete schedules only, such as 'linear'.")
    return jnp.maximum(t - 1 / schedule.steps, 0.0)


def append_dims(values: jax.Array, x: jax.Array) -> jax.Array:
    """`[B]` or scalar values with the trailing axes that broadcast them against x."""
    values = jnp.asarray(values)
    return values.reshape(values.shape + (1,) * (x.ndim - values.ndim)) if values.ndim else values


def reverse_log_variance(now: Prediction, s: jax.Array) -> jax.Array:
    """`[B, ...]` log of the learned variance of p(x_s | x_t) (Nichol & Dhariwal 2021, Eq. 15).

    `now.log_variance` in [-1, 1] lies between the logarithms of the posterior's variance and of that of all noise
    added between s and t. At s = 0, where the posterior has none, that of the step above stands in.

    Raises:
      UserError: where the network has not learned it.
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
