"""What a network predicts about the noise in x_t, and the one place that converts between the forms.

With `x = alpha x0 + sigma epsilon`, every form below fixes x0 and epsilon:

    x0              the clean image
    epsilon         the noise (Ho et al. 2020, Eq. 11)
    v               alpha epsilon - sigma x0 (Salimans & Ho 2022, Section 4)
    score           grad log p(x_t) = -epsilon / sigma (Song et al. 2021, Eq. 7)
    posterior_mean  the mean of q(x_{t-1} | x_t, x0), one level below (Ho et al. 2020, Eq. 7)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import flax.struct
import jax
import jax.numpy as jnp

from jaxgen.diffusion.schedule import Schedule
from jaxgen.errors import UserError

Kind = Literal["x0", "epsilon", "v", "score", "posterior_mean"]


@flax.struct.dataclass
class Prediction:
    """A prediction at (x, t), readable in every form. Arrays are float32 or wider.

    Attributes:
      value: `[B, ...]` in the form `kind`.
      x: `[B, ...]` the noisy images that it is about.
      t: `[B]` their times in [0, 1].
      schedule: what alpha and sigma are read from.
      kind: the form of `value`.
    """

    value: jax.Array
    x: jax.Array
    t: jax.Array
    schedule: Schedule = flax.struct.field(pytree_node=False)
    kind: Kind = flax.struct.field(pytree_node=False)

    @property
    def alpha(self) -> jax.Array:
        return like(self.schedule.alpha(self.t), self.x)

    @property
    def sigma(self) -> jax.Array:
        return like(self.schedule.sigma(self.t), self.x)

    @property
    def x0(self) -> jax.Array:
        alpha, sigma = self.alpha, self.sigma
        if self.kind == "x0":
            return self.value
        if self.kind == "v":  # exact at both ends: no division by a vanishing alpha or sigma
            return (alpha * self.x - sigma * self.value) / (alpha**2 + sigma**2)
        if self.kind == "posterior_mean":
            of_x, of_x0, _ = posterior(self.schedule, self.t, previous_level(self.schedule, self.t), self.x)
            return (self.value - of_x * self.x) / of_x0
        return (self.x - sigma * self.epsilon) / alpha

    @property
    def epsilon(self) -> jax.Array:
        alpha, sigma = self.alpha, self.sigma
        if self.kind == "epsilon":
            return self.value
        if self.kind == "score":
            return -sigma * self.value
        if self.kind == "v":
            return (sigma * self.x + alpha * self.value) / (alpha**2 + sigma**2)
        return (self.x - alpha * self.x0) / sigma

    @property
    def v(self) -> jax.Array:
        return self.value if self.kind == "v" else self.alpha * self.epsilon - self.sigma * self.x0

    @property
    def score(self) -> jax.Array:
        return self.value if self.kind == "score" else -self.epsilon / self.sigma

    @property
    def posterior_mean(self) -> jax.Array:
        if self.kind == "posterior_mean":
            return self.value
        of_x, of_x0, _ = posterior(self.schedule, self.t, previous_level(self.schedule, self.t), self.x)
        return of_x * self.x + of_x0 * self.x0

    def to(self, kind: Kind) -> Prediction:
        """The same prediction held in another form."""
        if kind not in Kind.__args__:
            raise UserError(f"A prediction cannot be of kind {kind!r}; known are {', '.join(Kind.__args__)}.")
        return self.replace(value=getattr(self, kind), kind=kind)

    def clip(self, low: float = -1.0, high: float = 1.0) -> Prediction:
        """The prediction whose x0 is clipped; epsilon follows from it."""
        return self.replace(value=jnp.clip(self.x0, low, high), kind="x0")


Denoiser = Callable[..., Prediction]  # (x, t) -> Prediction


def denoiser(schedule: Schedule, kind: Kind, network: Callable[..., jax.Array]) -> Denoiser:
    """A denoiser `(x, t, **condition) -> Prediction` from a network `(x, time, **condition) -> [B, ...]`.

    `t` is a scalar or `[B]` in [0, 1]; the network gets `schedule.conditioning(t)`, float32 `[B]`.
    """

    def denoise(x: jax.Array, t: jax.Array, **condition: Any) -> Prediction:
        t = jnp.broadcast_to(jnp.asarray(t), x.shape[:1])
        value = network(x, schedule.conditioning(t), **condition)
        if value.shape != x.shape:
            raise UserError(
                f"The network gives an array of shape {value.shape} for images of shape {x.shape}; "
                "its out_channels must be the images' channels."
            )
        return Prediction(value.astype(x.dtype), x, t, schedule, kind)

    return denoise


def posterior(
    schedule: Schedule, t: jax.Array, s: jax.Array, x: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """q(x_s | x_t, x_0) for s < t: `mean = of_x x_t + of_x0 x_0`, and its variance.

    Ho et al. (2020), Eqs. 6-7, for any pair of times (Kingma et al. 2021, Appendix A). Returns three arrays that
    broadcast against `x`. At s = 0 without noise the mean is x_0 and the variance 0.
    """
    alpha_t, alpha_s = like(schedule.alpha(t), x), like(schedule.alpha(s), x)
    sigma_t, sigma_s = like(schedule.sigma(t), x), like(schedule.sigma(s), x)
    fresh = like(fresh_noise(schedule, t, s), x)
    return alpha_t / alpha_s * (sigma_s / sigma_t) ** 2, alpha_s * fresh, fresh * sigma_s**2


def fresh_noise(schedule: Schedule, t: jax.Array, s: jax.Array) -> jax.Array:
    """The share of sigma(t)**2 that was added between s and t: 1 - SNR(t) / SNR(s), in [0, 1]."""
    return -jnp.expm1(schedule.log_snr(t) - schedule.log_snr(s))


def previous_level(schedule: Schedule, t: jax.Array) -> jax.Array:
    """One discrete noise level below t; never below 0."""
    if not schedule.steps:
        raise UserError("The posterior mean is a prediction for discrete schedules only, such as 'linear'.")
    return jnp.maximum(t - 1 / schedule.steps, 0.0)


def like(values: jax.Array, x: jax.Array) -> jax.Array:
    """`[B]` or scalar values with the trailing axes that broadcast them against x."""
    values = jnp.asarray(values)
    return values.reshape(values.shape + (1,) * (x.ndim - values.ndim)) if values.ndim else values
