"""Says what a network predicts about the noise in x_t: there are seven types, each of which fixes x0 and epsilon.

With `x = alpha x0 + sigma epsilon`, the value of every type is a pair of numbers (a, b) at each time,

    value = a x0 + b epsilon

and two equations in two unknowns give `x0 = (b x - sigma value) / (alpha b - sigma a)` and
`epsilon = (alpha value - a x) / (alpha b - sigma a)`. A new type needs no more than its pair. The types here
also write these equations out for their own pair, since terms that cancel on paper divide by an alpha or sigma near 0.
"""

from __future__ import annotations

import abc
import dataclasses
from typing import TYPE_CHECKING, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Float

from jaxgen.arrays import Array
from jaxgen.diffusion.process import append_dims, posterior, previous_level
from jaxgen.diffusion.schedules.base import Schedule

if TYPE_CHECKING:
    from jaxgen.diffusion.prediction import Prediction

Images = Float[Array, "B *shape"]
Pair = tuple[jax.Array | float, jax.Array | float]  # each a number, or of the shape of the times


@dataclasses.dataclass(frozen=True)
class PredictionType(abc.ABC):
    """This is the contract of a prediction type.

    A type gives its pair; `now` is a prediction at (x, t) whose `value` is of this type.

    Attributes:
      needs_signal: whether the value says nothing about x0 where alpha is 0.
    """

    needs_signal: ClassVar[bool] = False

    @abc.abstractmethod
    def pair(self, schedule: Schedule, t: Float[Array, "B"]) -> Pair:
        """Returns (a, b) of `value = a x0 + b epsilon`, each a number or of t's shape."""

    def x0(self, now: Prediction) -> Images:
        """Returns the clean images `[B, ...]`."""
        a, b = self._pair(now)
        return (b * now.x - now.sigma * now.value) / (now.alpha * b - now.sigma * a)

    def epsilon(self, now: Prediction) -> Images:
        """Returns the noise `[B, ...]`, of standard deviation about 1."""
        a, b = self._pair(now)
        return (now.alpha * now.value - a * now.x) / (now.alpha * b - now.sigma * a)

    def value(self, now: Prediction, x0: Images, epsilon: Images) -> Images:
        """Returns this type's value of x0 and epsilon at the (x, t) of a prediction of any type."""
        a, b = self._pair(now)
        return a * x0 + b * epsilon

    def target(self, now: Prediction, x0: Images, noise: Images) -> Images:
        """Returns what a perfect network gives at x_t = alpha x0 + sigma noise.

        Rounding makes x_t differ a little from alpha x0 + sigma noise. The target is that of the x0 and noise that
        have the same v and give the rounded x_t exactly.
        """
        fitting = dataclasses.replace(now, value=now.alpha * noise - now.sigma * x0, prediction_type=V())
        return self.value(now, fitting.x0, fitting.epsilon)

    def x0_error(self, schedule: Schedule, t: Float[Array, "B"]) -> Float[Array, "B"]:
        """Returns `[B]` |error of x0|**2 for each |error of the value|**2, at a fixed x_t."""
        a, b = self.pair(schedule, t)
        return (schedule.sigma(t) / (schedule.alpha(t) * b - schedule.sigma(t) * a)) ** 2

    def network_input(self, now: Prediction) -> Images:
        """Returns the noisy images as the network is given them."""
        return append_dims(now.schedule.input_scale(now.t), now.x) * now.x

    def _pair(self, now: Prediction) -> Pair:
        a, b = self.pair(now.schedule, now.t)
        return append_dims(a, now.x), append_dims(b, now.x)


@dataclasses.dataclass(frozen=True)
class X0(PredictionType):
    """The network predicts the clean image."""

    def pair(self, schedule: Schedule, t: Float[Array, "B"]) -> Pair:
        return 1.0, 0.0

    def x0(self, now: Prediction) -> Images:
        return now.value

    def epsilon(self, now: Prediction) -> Images:
        return (now.x - now.alpha * now.value) / now.sigma

    def value(self, now: Prediction, x0: Images, epsilon: Images) -> Images:
        return x0  # epsilon may be infinite

    def x0_error(self, schedule: Schedule, t: Float[Array, "B"]) -> Float[Array, "B"]:
        return jnp.ones_like(t)


@dataclasses.dataclass(frozen=True)
class Epsilon(PredictionType):
    """The network predicts the noise (Ho et al. 2020, Eq. 11)."""

    needs_signal: ClassVar[bool] = True

    def pair(self, schedule: Schedule, t: Float[Array, "B"]) -> Pair:
        return 0.0, 1.0

    def x0(self, now: Prediction) -> Images:
        return (now.x - now.sigma * now.value) / now.alpha

    def epsilon(self, now: Prediction) -> Images:
        return now.value

    def value(self, now: Prediction, x0: Images, epsilon: Images) -> Images:
        return epsilon  # x0 may be infinite

    def x0_error(self, schedule: Schedule, t: Float[Array, "B"]) -> Float[Array, "B"]:
        return jnp.exp(-schedule.log_snr(t))  # more precise than (sigma / alpha)**2 at the ends


@dataclasses.dataclass(frozen=True)
class V(PredictionType):
    """The network predicts v = alpha epsilon - sigma x0 (Salimans & Ho 2022, Section 4).

    x0 and epsilon can be computed at both ends: alpha b - sigma a is alpha**2 + sigma**2, which does not vanish.
    """

    def pair(self, schedule: Schedule, t: Float[Array, "B"]) -> Pair:
        return -schedule.sigma(t), schedule.alpha(t)

    def x0(self, now: Prediction) -> Images:
        return (now.alpha * now.x - now.sigma * now.value) / (now.alpha**2 + now.sigma**2)

    def epsilon(self, now: Prediction) -> Images:
        return (now.sigma * now.x + now.alpha * now.value) / (now.alpha**2 + now.sigma**2)

    def value(self, now: Prediction, x0: Images, epsilon: Images) -> Images:
        return now.alpha * epsilon - now.sigma * x0

    def target(self, now: Prediction, x0: Images, noise: Images) -> Images:
        return self.value(now, x0, noise)


@dataclasses.dataclass(frozen=True)
class Score(PredictionType):
    """The network predicts the score grad log p(x_t) = -epsilon / sigma (Song et al. 2021, Eq. 7)."""

    needs_signal: ClassVar[bool] = True

    def pair(self, schedule: Schedule, t: Float[Array, "B"]) -> Pair:
        return 0.0, -1 / schedule.sigma(t)

    def x0(self, now: Prediction) -> Images:
        return (now.x - now.sigma * self.epsilon(now)) / now.alpha  # no division by sigma

    def epsilon(self, now: Prediction) -> Images:
        return -now.sigma * now.value

    def value(self, now: Prediction, x0: Images, epsilon: Images) -> Images:
        return -epsilon / now.sigma

    def x0_error(self, schedule: Schedule, t: Float[Array, "B"]) -> Float[Array, "B"]:
        return schedule.sigma(t) ** 2 * jnp.exp(-schedule.log_snr(t))


@dataclasses.dataclass(frozen=True)
class Velocity(PredictionType):
    """The network predicts d x_t / dt = alpha' x0 + sigma' epsilon (Lipman et al. 2023).

    On straight paths it is epsilon - x0.
    """

    def pair(self, schedule: Schedule, t: Float[Array, "B"]) -> Pair:
        return schedule.rates(t)


@dataclasses.dataclass(frozen=True)
class EDM(PredictionType):
    """The network predicts F of Karras et al. (2022), Eq. 7: x0 = c_skip x + c_out F(c_in x), for any alpha.

    With the schedule's sigma_data, d, and n = sqrt((alpha d)**2 + sigma**2), the standard deviation of x_t, the factors
    are c_skip = alpha (d / n)**2, c_out = sigma d / n and c_in = 1 / n. F and the network's input have unit variance at
    every noise level. No equation here divides by alpha, and only `value` divides by sigma.
    """

    def pair(self, schedule: Schedule, t: Float[Array, "B"]) -> Pair:
        norm = self._norm(schedule, schedule.alpha(t), schedule.sigma(t))
        return schedule.sigma(t) / (norm * schedule.sigma_data), -schedule.alpha(t) * schedule.sigma_data / norm

    def x0(self, now: Prediction) -> Images:
        data, norm = self._scales(now)
        return now.alpha * (data / norm) ** 2 * now.x + now.sigma * data / norm * now.value

    def epsilon(self, now: Prediction) -> Images:
        data, norm = self._scales(now)
        return now.sigma / norm**2 * now.x - now.alpha * data / norm * now.value

    def value(self, now: Prediction, x0: Images, epsilon: Images) -> Images:
        data, norm = self._scales(now)
        return (x0 - now.alpha * (data / norm) ** 2 * now.x) * norm / (now.sigma * data)

    def x0_error(self, schedule: Schedule, t: Float[Array, "B"]) -> Float[Array, "B"]:
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        return (sigma * schedule.sigma_data) ** 2 / ((alpha * schedule.sigma_data) ** 2 + sigma**2)

    def network_input(self, now: Prediction) -> Images:
        return now.x / self._scales(now)[1]

    def _scales(self, now: Prediction) -> tuple[float, jax.Array]:
        return now.schedule.sigma_data, self._norm(now.schedule, now.alpha, now.sigma)

    def _norm(self, schedule: Schedule, alpha: jax.Array, sigma: jax.Array) -> jax.Array:
        """Returns the standard deviation of x_t for data of the standard deviation sigma_data."""
        return jnp.sqrt((alpha * schedule.sigma_data) ** 2 + sigma**2)


@dataclasses.dataclass(frozen=True)
class PosteriorMean(PredictionType):
    """The network predicts the mean of q(x_{t-1} | x_t, x0) of discrete schedules (Ho et al. 2020, Eq. 7).

    It is `of_x x_t + of_x0 x0`, where x_t holds epsilon. No equation here divides by alpha.
    """

    def pair(self, schedule: Schedule, t: Float[Array, "B"]) -> Pair:
        of_x, of_x0, _ = posterior(schedule, t, previous_level(schedule, t), t)
        return of_x * schedule.alpha(t) + of_x0, of_x * schedule.sigma(t)

    def x0(self, now: Prediction) -> Images:
        of_x, of_x0 = self._factors(now)
        return (now.value - of_x * now.x) / of_x0

    def epsilon(self, now: Prediction) -> Images:
        return (now.x - now.alpha * self.x0(now)) / now.sigma

    def value(self, now: Prediction, x0: Images, epsilon: Images) -> Images:
        of_x, of_x0 = self._factors(now)
        return of_x * now.x + of_x0 * x0

    def x0_error(self, schedule: Schedule, t: Float[Array, "B"]) -> Float[Array, "B"]:
        return posterior(schedule, t, previous_level(schedule, t), t)[1] ** -2

    def _factors(self, now: Prediction) -> tuple[jax.Array, jax.Array]:
        return posterior(now.schedule, now.t, previous_level(now.schedule, now.t), now.x)[:2]
