"""Noise schedules: alpha(t), sigma(t), log_snr(t) and its inverse, in float32 at least.

Time runs from 0 (data) to 1 (noise). `x_t = alpha x_0 + sigma epsilon`; `log_snr = log(alpha**2 / sigma**2)`
(Kingma et al. 2021, Eq. 4). Where alpha**2 + sigma**2 = 1, `alpha**2` is `alpha_bar` of Ho et al. (2020), Eq. 4.

The discrete schedules have `steps` noise levels, 1..steps in the papers, at the times i / steps. They are kept as
`log(alpha_bar)`, which is precise at both ends in float32, and interpolated linearly between levels: a
piecewise constant noise rate. At t = 0 there is no noise at all.

Given JAX arrays the functions return JAX arrays, float32 at least; given NumPy arrays or numbers, NumPy in
float64: samplers make their coefficients that way, once, whatever the networks run in.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.errors import UserError

Array = Any  # jax.Array or np.ndarray

# log(alpha_bar) of a level without any signal: alpha is 0 in float32, and no infinity enters a sum
NO_SIGNAL = -400.0


class Schedule:
    """The contract of a schedule. `t` is any shape of floats in [0, 1]; results have its shape.

    Attributes:
      steps: number of discrete noise levels, 0 for a continuous schedule.
      t_min: the smallest time above 0 that log-spaced grids visit and that training draws; 0 where the schedule
        still has noise at t = 0.
      prior_std: standard deviation of the noise that sampling starts from, about that of x_1.
      sigma_data: standard deviation that the EDM preconditioning takes the data to have (Karras et al. 2022).
    """

    steps: int = 0
    t_min: float = 0.0
    prior_std: float = 1.0
    sigma_data: float = 0.5

    def log_snr(self, t: Array) -> Array:
        """log(alpha**2 / sigma**2), decreasing in t."""
        raise NotImplementedError

    def t_from_log_snr(self, log_snr: Array) -> Array:
        """The inverse of `log_snr`."""
        raise NotImplementedError

    def alpha(self, t: Array) -> Array:
        """The signal's factor; variance preserving: sqrt(sigmoid(log_snr))."""
        log_snr = self.log_snr(t)
        np_ = _namespace(log_snr)
        return np_.exp(-0.5 * np_.logaddexp(0.0, -log_snr))

    def sigma(self, t: Array) -> Array:
        """The marginal noise's standard deviation: sqrt(sigmoid(-log_snr))."""
        log_snr = self.log_snr(t)
        np_ = _namespace(log_snr)
        return np_.exp(-0.5 * np_.logaddexp(0.0, log_snr))

    def rates(self, t: jax.Array) -> tuple[jax.Array, jax.Array]:
        """d alpha / dt and d sigma / dt, so that d x_t / dt = alpha' x_0 + sigma' epsilon along a path."""
        t = _float(jnp.asarray(t))
        one = jnp.ones_like(t)
        return jax.jvp(self.alpha, (t,), (one,))[1], jax.jvp(self.sigma, (t,), (one,))[1]

    def conditioning(self, t: Array) -> Array:
        """What a network embeds for time t: 0..999 whatever the schedule, the convention of weight files."""
        return 1000.0 * _float(t)

    def input_scale(self, t: Array) -> Array:
        """What the noisy image is multiplied by before it enters a network; 1 where its variance is bounded."""
        return 0.0 * _float(t) + 1.0

    def snap_to_levels(self, times: np.ndarray) -> np.ndarray:
        """Moves times of a sampler's grid onto the levels that the schedule has."""
        return times


@dataclasses.dataclass(frozen=True, eq=False)
class Discrete(Schedule):
    """A variance-preserving schedule of discrete noise levels.

    Attributes:
      betas: `[steps]` noise variances added at step 1..steps (Ho et al. 2020, Eq. 2), each in (0, 1]; a last one
        of 1 leaves no signal.
    """

    betas: np.ndarray

    def __post_init__(self) -> None:
        betas = np.asarray(self.betas, np.float64)
        if betas.ndim != 1 or not ((betas > 0) & (betas <= 1)).all():
            raise UserError("A schedule's betas must be a list of numbers above 0 and at most 1.")
        object.__setattr__(self, "betas", betas)

    @property
    def steps(self) -> int:
        return len(self.betas)

    @property
    def t_min(self) -> float:
        return 1 / self.steps

    @functools.cached_property
    def log_alpha_bar(self) -> np.ndarray:
        """`[steps + 1]` log of the cumulative product of 1 - beta, starting at 0 (no noise)."""
        with np.errstate(divide="ignore"):
            logs = np.concatenate([[0.0], np.cumsum(np.log1p(-self.betas))])
        return np.maximum(logs, NO_SIGNAL)

    def _log_alpha_bar(self, t: Array) -> Array:
        level = self._level(t)
        np_ = _namespace(level)
        table = np_.asarray(self.log_alpha_bar, level.dtype)
        below = np_.clip(np_.floor(level).astype("int32"), 0, self.steps - 1)
        part = level - below
        return (1 - part) * table[below] + part * table[below + 1]

    def _level(self, t: Array) -> Array:
        """t * steps, moved onto the integer that it misses by rounding only; keeps the slope in t."""
        level = _float(t) * self.steps
        np_ = _namespace(level)
        whole = np_.round(level)
        snapped = np_.where(np_.abs(level - whole) < 1e-3, whole, level)
        return snapped if np_ is np else level + jax.lax.stop_gradient(snapped - level)

    def alpha(self, t: Array) -> Array:
        log_alpha_bar = self._log_alpha_bar(t)
        return _namespace(log_alpha_bar).exp(0.5 * log_alpha_bar)

    def sigma(self, t: Array) -> Array:
        log_alpha_bar = self._log_alpha_bar(t)
        np_ = _namespace(log_alpha_bar)
        return np_.sqrt(-np_.expm1(log_alpha_bar))

    def log_snr(self, t: Array) -> Array:
        return _vp_log_snr(self._log_alpha_bar(t))

    def t_from_log_snr(self, log_snr: Array) -> Array:
        log_alpha_bar = _vp_log_alpha_bar(log_snr)
        np_ = _namespace(log_alpha_bar)
        table = np_.asarray(self.log_alpha_bar, log_alpha_bar.dtype)
        level = np_.interp(-log_alpha_bar, -table, np_.arange(self.steps + 1, dtype=log_alpha_bar.dtype))
        return level / self.steps

    def conditioning(self, t: Array) -> Array:
        """Level i of 1..steps is embedded as i - 1, stretched to a thousand levels."""
        return (self._level(t) - 1) * (1000 / self.steps)

    def snap_to_levels(self, times: np.ndarray) -> np.ndarray:
        return np.round(np.asarray(times) * self.steps) / self.steps


def linear(
    steps: int = 1000, beta_start: float = 1e-4, beta_end: float = 0.02, zero_terminal_snr: bool = False
) -> Discrete:
    """Ho et al. (2020), Section 4: betas from `beta_start` to `beta_end` in equal steps."""
    return _discrete(np.linspace(beta_start, beta_end, _positive(steps)), zero_terminal_snr)


def scaled_linear(
    steps: int = 1000, beta_start: float = 0.00085, beta_end: float = 0.012, zero_terminal_snr: bool = False
) -> Discrete:
    """Stable Diffusion's (Rombach et al. 2022): equal steps of the square root of beta."""
    return _discrete(np.linspace(beta_start**0.5, beta_end**0.5, _positive(steps)) ** 2, zero_terminal_snr)


def cosine(
    steps: int = 1000, offset: float = 0.008, max_beta: float = 0.999, zero_terminal_snr: bool = False
) -> Discrete:
    """Nichol & Dhariwal (2021), Eq. 17: alpha_bar follows a squared cosine; betas are cut at `max_beta`."""
    angle = (np.arange(_positive(steps) + 1) / steps + offset) / (1 + offset) * np.pi / 2
    return _discrete(_betas(np.cos(angle) ** 2, max_beta), zero_terminal_snr)


def sigmoid(
    steps: int = 1000,
    start: float = -3.0,
    end: float = 3.0,
    tau: float = 1.0,
    max_beta: float = 0.999,
    zero_terminal_snr: bool = False,
) -> Discrete:
    """Jabri et al. (2022), Section 3 and Chen (2023): alpha_bar is a part of a sigmoid, from 1 to 0."""
    if not (start < end and tau > 0):
        raise UserError("A sigmoid schedule's start must be below its end, and tau above 0.")
    curve = 1 / (1 + np.exp((start + (end - start) * np.arange(_positive(steps) + 1) / steps) / tau))
    return _discrete(_betas((curve - curve[-1]) / (curve[0] - curve[-1]), max_beta), zero_terminal_snr)


def _betas(alpha_bar: np.ndarray, max_beta: float) -> np.ndarray:
    return np.minimum(1 - alpha_bar[1:] / alpha_bar[:-1], max_beta)


def _discrete(betas: np.ndarray, zero_terminal_snr: bool) -> Discrete:
    """With `zero_terminal_snr`, sqrt(alpha_bar) is shifted and scaled so that its last value is 0 and its first
    one stays (Lin et al. 2023, Algorithm 1); then a network must not predict epsilon."""
    if zero_terminal_snr:
        alpha = np.sqrt(np.cumprod(1 - betas))
        alpha = (alpha - alpha[-1]) * alpha[0] / (alpha[0] - alpha[-1])
        alpha_bar = np.concatenate([[1.0], alpha**2])
        betas = 1 - alpha_bar[1:] / alpha_bar[:-1]
    return Discrete(betas)


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

    def _angle(self, t: Array) -> Array:
        low, high = self._ends()
        return low + _float(t) * (high - low)

    def log_snr(self, t: Array) -> Array:
        angle = self._angle(t)
        np_ = _namespace(angle)
        return -2.0 * np_.log(np_.tan(angle))

    def t_from_log_snr(self, log_snr: Array) -> Array:
        low, high = self._ends()
        log_snr = _float(log_snr)
        np_ = _namespace(log_snr)
        return (np_.arctan(np_.exp(-0.5 * log_snr)) - low) / (high - low)


def continuous_cosine(log_snr_min: float = -15.0, log_snr_max: float = 15.0) -> ContinuousCosine:
    """See `ContinuousCosine`."""
    return ContinuousCosine(log_snr_min, log_snr_max)


@dataclasses.dataclass(frozen=True)
class VP(Schedule):
    """The variance-preserving SDE (Song et al. 2021, Eq. 32-33): noise rate beta(t) linear in t.

    Attributes:
      beta_min, beta_max: the rate at t = 0 and t = 1; their thousandths are the discrete betas.
      t_min: where sampling and training end, since the score diverges at t = 0.
    """

    beta_min: float = 0.1
    beta_max: float = 20.0
    t_min: float = 1e-3

    def __post_init__(self) -> None:
        if not 0 < self.beta_min < self.beta_max:
            raise UserError("A schedule's beta_min must be above 0 and below its beta_max.")
        _check_t_min(self.t_min)

    def integral(self, t: Array) -> Array:
        """The integral of beta from 0 to t, -log(alpha_bar)."""
        t = _float(t)
        return self.beta_min * t + 0.5 * (self.beta_max - self.beta_min) * t**2

    def inverse_integral(self, value: Array) -> Array:
        """The time at which `integral` has this value."""
        slope = self.beta_max - self.beta_min
        root = _namespace(value).sqrt(self.beta_min**2 + 2 * slope * value)
        return 2 * value / (self.beta_min + root)

    def alpha(self, t: Array) -> Array:
        integral = self.integral(t)
        return _namespace(integral).exp(-0.5 * integral)

    def sigma(self, t: Array) -> Array:
        integral = self.integral(t)
        np_ = _namespace(integral)
        return np_.sqrt(-np_.expm1(-integral))

    def log_snr(self, t: Array) -> Array:
        return _vp_log_snr(-self.integral(t))

    def t_from_log_snr(self, log_snr: Array) -> Array:
        return self.inverse_integral(-_vp_log_alpha_bar(log_snr))


@dataclasses.dataclass(frozen=True)
class SubVP(VP):
    """The sub-VP SDE (Song et al. 2021, Eq. 34-35): VP's alpha, and sigma = 1 - alpha**2, below VP's."""

    def sigma(self, t: Array) -> Array:
        integral = self.integral(t)
        return -_namespace(integral).expm1(-integral)

    def log_snr(self, t: Array) -> Array:
        integral = self.integral(t)
        np_ = _namespace(integral)
        with np.errstate(divide="ignore"):
            return -integral - 2 * np_.log(-np_.expm1(-integral))

    def t_from_log_snr(self, log_snr: Array) -> Array:
        # alpha / (1 - alpha**2) = ratio
        log_snr = _float(log_snr)
        np_ = _namespace(log_snr)
        ratio = np_.exp(0.5 * log_snr)
        alpha = 2 * ratio / (1 + np_.sqrt(1 + 4 * ratio**2))
        return self.inverse_integral(-2 * np_.log(alpha))


def vp(beta_min: float = 0.1, beta_max: float = 20.0, t_min: float = 1e-3) -> VP:
    """See `VP`."""
    return VP(beta_min, beta_max, t_min)


def sub_vp(beta_min: float = 0.1, beta_max: float = 20.0, t_min: float = 1e-3) -> SubVP:
    """See `SubVP`."""
    return SubVP(beta_min, beta_max, t_min)


class _Exploding(Schedule):
    """alpha = 1: the noise is added to the data, which are not shrunk."""

    def alpha(self, t: Array) -> Array:
        return 0.0 * _float(t) + 1.0

    def log_snr(self, t: Array) -> Array:
        sigma = self.sigma(t)
        with np.errstate(divide="ignore"):
            return -2.0 * _namespace(sigma).log(sigma)

    @property
    def prior_std(self) -> float:
        return float(self.sigma(1.0))

    def conditioning(self, t: Array) -> Array:
        """c_noise of Karras et al. (2022), Table 1: log(sigma) / 4."""
        return -0.125 * self.log_snr(t)

    def input_scale(self, t: Array) -> Array:
        """c_in of Karras et al. (2022), Table 1."""
        sigma = self.sigma(t)
        return 1 / _namespace(sigma).sqrt(sigma**2 + self.sigma_data**2)


@dataclasses.dataclass(frozen=True)
class VE(_Exploding):
    """The variance-exploding SDE (Song et al. 2021, Eq. 30-31): alpha = 1, sigma grows geometrically."""

    sigma_min: float = 0.01
    sigma_max: float = 50.0
    sigma_data: float = 0.5

    def __post_init__(self) -> None:
        _check_sigmas(self.sigma_min, self.sigma_max, self.sigma_data)

    def sigma(self, t: Array) -> Array:
        t = _float(t)
        return self.sigma_min * _namespace(t).exp(t * np.log(self.sigma_max / self.sigma_min))

    def t_from_log_snr(self, log_snr: Array) -> Array:
        return (-0.5 * _float(log_snr) - np.log(self.sigma_min)) / np.log(self.sigma_max / self.sigma_min)


def ve(sigma_min: float = 0.01, sigma_max: float = 50.0, sigma_data: float = 0.5) -> VE:
    """See `VE`."""
    return VE(sigma_min, sigma_max, sigma_data)


@dataclasses.dataclass(frozen=True)
class EDM(_Exploding):
    """Karras et al. (2022), Table 1: alpha = 1 and sigma the time itself, here in units of `sigma_max`.

    Sample it on the `karras` grid, train it at `log_normal` times, predict in the form `edm`.
    """

    sigma_min: float = 0.002
    sigma_max: float = 80.0
    sigma_data: float = 0.5

    def __post_init__(self) -> None:
        _check_sigmas(self.sigma_min, self.sigma_max, self.sigma_data)

    @property
    def t_min(self) -> float:
        return self.sigma_min / self.sigma_max

    def sigma(self, t: Array) -> Array:
        return self.sigma_max * _float(t)

    def t_from_log_snr(self, log_snr: Array) -> Array:
        log_snr = _float(log_snr)
        return _namespace(log_snr).exp(-0.5 * log_snr) / self.sigma_max


def edm(sigma_min: float = 0.002, sigma_max: float = 80.0, sigma_data: float = 0.5) -> EDM:
    """See `EDM`."""
    return EDM(sigma_min, sigma_max, sigma_data)


@dataclasses.dataclass(frozen=True)
class RectifiedFlow(Schedule):
    """Straight paths (Liu et al. 2022; Lipman et al. 2023): alpha = 1 - sigma, sigma = t for shift 1.

    Attributes:
      shift: moves times towards noise: sigma = shift t / (1 + (shift - 1) t) (Esser et al. 2024, Eq. 23).
      t_min: smallest time that training and log-spaced grids visit.
    """

    shift: float = 1.0
    t_min: float = 1e-3

    def __post_init__(self) -> None:
        if not self.shift > 0:
            raise UserError(f"A schedule's shift must be above 0, not {self.shift}.")
        _check_t_min(self.t_min)

    def sigma(self, t: Array) -> Array:
        t = _float(t)
        return self.shift * t / (1 + (self.shift - 1) * t)

    def alpha(self, t: Array) -> Array:
        t = _float(t)
        return (1 - t) / (1 + (self.shift - 1) * t)

    def log_snr(self, t: Array) -> Array:
        t = _float(t)
        np_ = _namespace(t)
        with np.errstate(divide="ignore"):
            return 2 * (np_.log1p(-t) - np_.log(t) - np.log(self.shift))

    def t_from_log_snr(self, log_snr: Array) -> Array:
        ratio = 0.5 * _float(log_snr) + np.log(self.shift)
        return 1 / (1 + _namespace(ratio).exp(ratio))

    def conditioning(self, t: Array) -> Array:
        return 1000.0 * self.sigma(t)


def rectified_flow(shift: float = 1.0, t_min: float = 1e-3) -> RectifiedFlow:
    """See `RectifiedFlow`."""
    return RectifiedFlow(shift, t_min)


def _vp_log_snr(log_alpha_bar: Array) -> Array:
    np_ = _namespace(log_alpha_bar)
    with np.errstate(divide="ignore"):
        return log_alpha_bar - np_.log(-np_.expm1(log_alpha_bar))


def _vp_log_alpha_bar(log_snr: Array) -> Array:
    log_snr = _float(log_snr)
    return -_namespace(log_snr).logaddexp(0.0, -log_snr)


def _namespace(values: Array) -> Any:
    """jax.numpy for JAX arrays, else numpy."""
    return jnp if isinstance(values, jax.Array) else np


def _float(t: Array) -> Array:
    """JAX arrays at least float32, whatever the networks run in; everything else NumPy's float64."""
    if isinstance(t, jax.Array):
        return jnp.asarray(t, jnp.promote_types(t.dtype, jnp.float32))
    return np.asarray(t, np.float64)


def _positive(steps: int) -> int:
    if steps < 1:
        raise UserError(f"A schedule's steps must be at least 1, not {steps}.")
    return steps


def _check_t_min(t_min: float) -> None:
    if not 0 < t_min < 1:
        raise UserError(f"A schedule's t_min must lie between 0 and 1, not at {t_min}.")


def _check_sigmas(sigma_min: float, sigma_max: float, sigma_data: float) -> None:
    if not (0 < sigma_min < sigma_max and sigma_data > 0):
        raise UserError("A schedule's sigma_min must be above 0 and below its sigma_max, and sigma_data above 0.")
