"""Holds variance-preserving schedules of discrete noise levels.

The noise levels 1..steps of the papers are at the times i / steps. Their `log(alpha_bar)` is stored, which is precise
at both ends in float32, and is interpolated linearly, so that the noise rate is constant between two levels. At t = 0
there is no noise at all.
"""

from __future__ import annotations

import abc
import dataclasses
import functools

import jax
import numpy as np
from jaxtyping import Float

from jaxgen.diffusion.schedules.base import (
    Array,
    Schedule,
    array_module,
    at_least_float32,
    vp_log_alpha_bar,
    vp_log_snr,
)
from jaxgen.errors import UserError

# log(alpha_bar) of a level without any signal: alpha is 0 in float32, and no infinity enters a sum
NO_SIGNAL = -400.0


class Discrete(Schedule):
    """Holds what all discrete schedules share; a class gives `betas`."""

    @property
    @abc.abstractmethod
    def betas(self) -> np.ndarray:
        """Returns `[steps]` float64 noise variances added at step 1..steps (Ho et al. 2020, Eq. 2).

        Each is in (0, 1]; a last one of 1 leaves no signal.
        """

    def __post_init__(self) -> None:
        betas = self.betas
        if betas.ndim != 1 or not ((betas > 0) & (betas <= 1)).all():
            raise UserError("A schedule's betas must be a list of numbers above 0 and at most 1.")

    @property
    def t_min(self) -> float:  # type: ignore[override]  # a schedule is only read
        return 1 / self.steps

    @functools.cached_property
    def log_alpha_bar(self) -> np.ndarray:
        """Returns `[steps + 1]` logarithms of the cumulative product of 1 - beta, starting at 0 (no noise)."""
        with np.errstate(divide="ignore"):
            logs = np.concatenate([[0.0], np.cumsum(np.log1p(-self.betas))])
        return np.maximum(logs, NO_SIGNAL)

    def _log_alpha_bar(self, t: Array) -> Array:
        level = self._level(t)
        np_ = array_module(level)
        table = np_.asarray(self.log_alpha_bar, np_.result_type(level))
        below = np_.clip(np_.floor(level).astype("int32"), 0, self.steps - 1)
        part = level - below
        return (1 - part) * table[below] + part * table[below + 1]

    def _level(self, t: Array) -> Array:
        """Returns t * steps, rounded where it misses an integer by a rounding error only; its slope in t is kept."""
        level = at_least_float32(t) * self.steps
        np_ = array_module(level)
        whole = np_.round(level)
        snapped = np_.where(np_.abs(level - whole) < 1e-3, whole, level)
        return snapped if np_ is np else level + jax.lax.stop_gradient(snapped - level)

    def alpha(self, t: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        log_alpha_bar = self._log_alpha_bar(t)
        return array_module(log_alpha_bar).exp(0.5 * log_alpha_bar)

    def sigma(self, t: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        log_alpha_bar = self._log_alpha_bar(t)
        np_ = array_module(log_alpha_bar)
        return np_.sqrt(-np_.expm1(log_alpha_bar))

    def log_snr(self, t: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        return vp_log_snr(self._log_alpha_bar(t))

    def t_from_log_snr(self, log_snr: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        log_alpha_bar = vp_log_alpha_bar(log_snr)
        np_ = array_module(log_alpha_bar)
        dtype = np_.result_type(log_alpha_bar)
        table = np_.asarray(self.log_alpha_bar, dtype)
        level = np_.interp(-log_alpha_bar, -table, np_.arange(self.steps + 1, dtype=dtype))
        return level / self.steps

    def conditioning(self, t: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """Returns (i - 1) * 1000 / steps for level i of 1..steps."""
        return (self._level(t) - 1) * (1000 / self.steps)

    def snap_to_levels(self, times: Float[np.ndarray, "N"]) -> Float[np.ndarray, "N"]:
        return np.round(np.asarray(times) * self.steps) / self.steps


@dataclasses.dataclass(frozen=True, eq=False)
class Betas(Discrete):
    """The schedule is given by its betas.

    Attributes:
      values: `[steps]` betas, each in (0, 1].
    """

    values: np.ndarray | tuple[float, ...]

    @functools.cached_property
    def betas(self) -> np.ndarray:
        return np.asarray(self.values, np.float64)

    @property
    def steps(self) -> int:  # type: ignore[override]  # a schedule is only read
        return len(self.betas)


@dataclasses.dataclass(frozen=True)
class _Formula(Discrete):
    """The betas follow a formula.

    Attributes:
      steps: number of noise levels.
      zero_terminal_snr: sqrt(alpha_bar) is shifted and scaled so that its last value is 0 and its first one is kept
        (Lin et al. 2023, Algorithm 1). A network must then not predict epsilon.
    """

    steps: int = 1000
    zero_terminal_snr: bool = dataclasses.field(default=False, kw_only=True)

    @abc.abstractmethod
    def _formula(self) -> np.ndarray:
        """Returns `[steps]` betas before `zero_terminal_snr`."""

    @functools.cached_property
    def betas(self) -> np.ndarray:
        if self.steps < 1:
            raise UserError(f"A schedule's steps must be at least 1, not {self.steps}.")
        return _without_signal_at_the_end(self._formula()) if self.zero_terminal_snr else self._formula()


@dataclasses.dataclass(frozen=True)
class Linear(_Formula):
    """The betas go from `beta_start` to `beta_end` in equal steps (Ho et al. 2020, Section 4)."""

    beta_start: float = 1e-4
    beta_end: float = 0.02

    def _formula(self) -> np.ndarray:
        return np.linspace(self.beta_start, self.beta_end, self.steps)


@dataclasses.dataclass(frozen=True)
class ScaledLinear(_Formula):
    """The square root of beta grows in equal steps: Stable Diffusion's schedule (Rombach et al. 2022)."""

    beta_start: float = 0.00085
    beta_end: float = 0.012

    def _formula(self) -> np.ndarray:
        return np.linspace(self.beta_start**0.5, self.beta_end**0.5, self.steps) ** 2


@dataclasses.dataclass(frozen=True)
class Cosine(_Formula):
    """alpha_bar follows a squared cosine (Nichol & Dhariwal 2021, Eq. 17).

    Attributes:
      offset: s in the paper, which keeps the first betas from being too small.
      max_beta: the largest beta; larger ones are replaced by it.
    """

    offset: float = 0.008
    max_beta: float = 0.999

    def _formula(self) -> np.ndarray:
        angle = (np.arange(self.steps + 1) / self.steps + self.offset) / (1 + self.offset) * np.pi / 2
        return _betas(np.cos(angle) ** 2, self.max_beta)


@dataclasses.dataclass(frozen=True)
class Sigmoid(_Formula):
    """alpha_bar is a part of a sigmoid, scaled to run from 1 to 0 (Jabri et al. 2022, Section 3; Chen 2023).

    Attributes:
      start, end: the part of the sigmoid's axis that is used; start < end.
      tau: the temperature, by which the axis is divided.
      max_beta: the largest beta; larger ones are replaced by it.
    """

    start: float = -3.0
    end: float = 3.0
    tau: float = 1.0
    max_beta: float = 0.999

    def __post_init__(self) -> None:
        if not (self.start < self.end and self.tau > 0):
            raise UserError("A sigmoid schedule's start must be below its end, and tau above 0.")
        super().__post_init__()

    def _formula(self) -> np.ndarray:
        share = np.arange(self.steps + 1) / self.steps
        curve = 1 / (1 + np.exp((self.start + (self.end - self.start) * share) / self.tau))
        return _betas((curve - curve[-1]) / (curve[0] - curve[-1]), self.max_beta)


def _betas(alpha_bar: np.ndarray, max_beta: float) -> np.ndarray:
    return np.minimum(1 - alpha_bar[1:] / alpha_bar[:-1], max_beta)


def _without_signal_at_the_end(betas: np.ndarray) -> np.ndarray:
    """Removes the signal from the last level; see `_Formula.zero_terminal_snr`."""
    alpha = np.sqrt(np.cumprod(1 - betas))
    alpha = (alpha - alpha[-1]) * alpha[0] / (alpha[0] - alpha[-1])
    alpha_bar = np.concatenate([[1.0], alpha**2])
    return 1 - alpha_bar[1:] / alpha_bar[:-1]
