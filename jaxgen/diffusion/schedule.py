"""Noise schedules: alpha(t), sigma(t), log_snr(t) and its inverse, in float32 at least.

Time runs from 0 (data) to 1 (noise). `x_t = alpha x_0 + sigma epsilon`; `alpha**2` is `alpha_bar` of Ho et al.
(2020), Eq. 4, and `log_snr = log(alpha**2 / sigma**2)` (Kingma et al. 2021, Eq. 4).

The discrete schedules have `steps` noise levels, 1..steps in the papers, at the times i / steps. They are kept as
`log(alpha_bar)`, which is precise at both ends in float32, and interpolated linearly between levels: a
piecewise constant noise rate. At t = 0 there is no noise at all.
"""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.errors import UserError


class Schedule:
    """The contract of a schedule. `t` is any shape of floats in [0, 1]; results have its shape.

    Attributes:
      steps: number of discrete noise levels, 0 for a continuous schedule.
    """

    steps: int = 0

    def log_snr(self, t: jax.Array) -> jax.Array:
        """log(alpha**2 / sigma**2), decreasing in t."""
        raise NotImplementedError

    def time(self, log_snr: jax.Array) -> jax.Array:
        """The inverse of `log_snr`."""
        raise NotImplementedError

    def alpha(self, t: jax.Array) -> jax.Array:
        """The signal's factor; variance preserving: sqrt(sigmoid(log_snr))."""
        return jnp.exp(-0.5 * jax.nn.softplus(-self.log_snr(t)))

    def sigma(self, t: jax.Array) -> jax.Array:
        """The marginal noise's standard deviation: sqrt(sigmoid(-log_snr))."""
        return jnp.exp(-0.5 * jax.nn.softplus(self.log_snr(t)))

    def conditioning(self, t: jax.Array) -> jax.Array:
        """What a network embeds for time t: 0..999 whatever the schedule, the convention of weight files."""
        return 1000.0 * _float(t)

    def grid(self, times: np.ndarray) -> np.ndarray:
        """Moves times of a sampler's grid onto the levels that the schedule has."""
        return times


@dataclasses.dataclass(frozen=True, eq=False)
class Discrete(Schedule):
    """A variance-preserving schedule of discrete noise levels.

    Attributes:
      betas: `[steps]` noise variances added at step 1..steps (Ho et al. 2020, Eq. 2), each in (0, 1).
    """

    betas: np.ndarray

    def __post_init__(self) -> None:
        betas = np.asarray(self.betas, np.float64)
        if betas.ndim != 1 or not ((betas > 0) & (betas < 1)).all():
            raise UserError("A schedule's betas must be a list of numbers between 0 and 1.")
        object.__setattr__(self, "betas", betas)

    @property
    def steps(self) -> int:
        return len(self.betas)

    @functools.cached_property
    def log_alpha_bar(self) -> np.ndarray:
        """`[steps + 1]` log of the cumulative product of 1 - beta, starting at 0 (no noise)."""
        return np.concatenate([[0.0], np.cumsum(np.log1p(-self.betas))])

    def _log_alpha_bar(self, t: jax.Array) -> jax.Array:
        level = self._level(t)
        table = jnp.asarray(self.log_alpha_bar, level.dtype)
        below = jnp.clip(jnp.floor(level).astype(jnp.int32), 0, self.steps - 1)
        part = level - below
        return (1 - part) * table[below] + part * table[below + 1]

    def _level(self, t: jax.Array) -> jax.Array:
        """t * steps, moved onto the integer that it misses by rounding only; keeps the slope in t."""
        level = _float(t) * self.steps
        whole = jnp.round(level)
        snapped = jnp.where(jnp.abs(level - whole) < 1e-3, whole, level)
        return level + jax.lax.stop_gradient(snapped - level)

    def alpha(self, t: jax.Array) -> jax.Array:
        return jnp.exp(0.5 * self._log_alpha_bar(t))

    def sigma(self, t: jax.Array) -> jax.Array:
        return jnp.sqrt(-jnp.expm1(self._log_alpha_bar(t)))

    def log_snr(self, t: jax.Array) -> jax.Array:
        log_alpha_bar = self._log_alpha_bar(t)
        return log_alpha_bar - jnp.log(-jnp.expm1(log_alpha_bar))

    def time(self, log_snr: jax.Array) -> jax.Array:
        log_alpha_bar = -jax.nn.softplus(-_float(log_snr))
        table = jnp.asarray(self.log_alpha_bar, log_alpha_bar.dtype)
        level = jnp.interp(-log_alpha_bar, -table, jnp.arange(self.steps + 1, dtype=log_alpha_bar.dtype))
        return level / self.steps

    def conditioning(self, t: jax.Array) -> jax.Array:
        """Level i of 1..steps is embedded as i - 1, stretched to a thousand levels."""
        return (self._level(t) - 1) * (1000 / self.steps)

    def grid(self, times: np.ndarray) -> np.ndarray:
        return np.round(np.asarray(times) * self.steps) / self.steps


def linear(steps: int = 1000, beta_start: float = 1e-4, beta_end: float = 0.02) -> Discrete:
    """Ho et al. (2020), Section 4: betas from `beta_start` to `beta_end` in equal steps."""
    return Discrete(np.linspace(beta_start, beta_end, _positive(steps)))


def cosine(steps: int = 1000, offset: float = 0.008, max_beta: float = 0.999) -> Discrete:
    """Nichol & Dhariwal (2021), Eq. 17: alpha_bar follows a squared cosine; betas are cut at `max_beta`."""
    angle = (np.arange(_positive(steps) + 1) / steps + offset) / (1 + offset) * np.pi / 2
    alpha_bar = np.cos(angle) ** 2
    return Discrete(np.minimum(1 - alpha_bar[1:] / alpha_bar[:-1], max_beta))


@dataclasses.dataclass(frozen=True)
class ContinuousCosine(Schedule):
    """alpha = cos(u), sigma = sin(u) with u linear in t: `log_snr = -2 log tan(u)`.

    The ends are cut so that log_snr runs from `log_snr_max` at t = 0 to `log_snr_min` at t = 1
    (Hoogeboom et al. 2023, "simple diffusion", Section 2.1 and its appendix).
    """

    log_snr_min: float = -15.0
    log_snr_max: float = 15.0

    def __post_init__(self) -> None:
        if not self.log_snr_min < self.log_snr_max:
            raise UserError("A schedule's log_snr_min must be below its log_snr_max.")

    def _ends(self) -> tuple[float, float]:
        return float(np.arctan(np.exp(-0.5 * self.log_snr_max))), float(np.arctan(np.exp(-0.5 * self.log_snr_min)))

    def _angle(self, t: jax.Array) -> jax.Array:
        low, high = self._ends()
        return low + _float(t) * (high - low)

    def log_snr(self, t: jax.Array) -> jax.Array:
        return -2.0 * jnp.log(jnp.tan(self._angle(t)))

    def time(self, log_snr: jax.Array) -> jax.Array:
        low, high = self._ends()
        return (jnp.arctan(jnp.exp(-0.5 * _float(log_snr))) - low) / (high - low)


def continuous_cosine(log_snr_min: float = -15.0, log_snr_max: float = 15.0) -> ContinuousCosine:
    """See `ContinuousCosine`."""
    return ContinuousCosine(log_snr_min, log_snr_max)


def _float(t: jax.Array) -> jax.Array:
    """At least float32, whatever the networks run in; float64 where it is asked for."""
    return jnp.asarray(t, jnp.promote_types(jnp.asarray(t).dtype, jnp.float32))


def _positive(steps: int) -> int:
    if steps < 1:
        raise UserError(f"A schedule's steps must be at least 1, not {steps}.")
    return steps
