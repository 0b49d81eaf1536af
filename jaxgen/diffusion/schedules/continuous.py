"""Holds continuous schedules whose signal falls as the noise grows: cosine, the VP and sub-VP SDEs, rectified flow."""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Float

from jaxgen.diffusion.schedules.base import (
    Array,
    Schedule,
    array_module,
    at_least_float32,
    check_t_min,
    vp_log_alpha_bar,
    vp_log_snr,
)
from jaxgen.errors import UserError


@dataclasses.dataclass(frozen=True)
class ContinuousCosine(Schedule):
    """The schedule is alpha = cos(u), sigma = sin(u) with u linear in t: `log_snr = -2 log tan(u)`.

    The ends of u are chosen so that log_snr runs from `log_snr_max` at t = 0 to `log_snr_min` at t = 1
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
        return low + at_least_float32(t) * (high - low)

    def log_snr(self, t: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        angle = self._angle(t)
        np_ = array_module(angle)
        return -2.0 * np_.log(np_.tan(angle))

    def t_from_log_snr(self, log_snr: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        low, high = self._ends()
        log_snr = at_least_float32(log_snr)
        np_ = array_module(log_snr)
        return (np_.arctan(np_.exp(-0.5 * log_snr)) - low) / (high - low)


@dataclasses.dataclass(frozen=True)
class VP(Schedule):
    """The variance-preserving SDE (Song et al. 2021, Eq. 32-33) has a noise rate beta(t) that is linear in t.

    Attributes:
      beta_min, beta_max: the rate at t = 0 and at t = 1; a thousandth of them are the first and last beta of `Linear`.
      t_min: the smallest time of training and sampling, since the score diverges at t = 0.
    """

    beta_min: float = 0.1
    beta_max: float = 20.0
    t_min: float = 1e-3

    def __post_init__(self) -> None:
        if not 0 < self.beta_min < self.beta_max:
            raise UserError("A schedule's beta_min must be above 0 and below its beta_max.")
        check_t_min(self.t_min)

    def integral(self, t: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """Returns the integral of beta from 0 to t, -log(alpha_bar)."""
        t = at_least_float32(t)
        return self.beta_min * t + 0.5 * (self.beta_max - self.beta_min) * t**2

    def inverse_integral(self, value: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """Returns the time at which `integral` has this value."""
        slope = self.beta_max - self.beta_min
        root = array_module(value).sqrt(self.beta_min**2 + 2 * slope * value)
        return 2 * value / (self.beta_min + root)

    def alpha(self, t: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        integral = self.integral(t)
        return array_module(integral).exp(-0.5 * integral)

    def sigma(self, t: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        integral = self.integral(t)
        np_ = array_module(integral)
        return np_.sqrt(-np_.expm1(-integral))

    def log_snr(self, t: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        return vp_log_snr(-self.integral(t))

    def t_from_log_snr(self, log_snr: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        return self.inverse_integral(-vp_log_alpha_bar(log_snr))


@dataclasses.dataclass(frozen=True)
class SubVP(VP):
    """In the sub-VP SDE (Song et al. 2021, Eq. 34-35) alpha is that of VP, and sigma = 1 - alpha**2 is smaller."""

    def sigma(self, t: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        integral = self.integral(t)
        return -array_module(integral).expm1(-integral)

    def log_snr(self, t: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        integral = self.integral(t)
        np_ = array_module(integral)
        with np.errstate(divide="ignore"):
            return -integral - 2 * np_.log(-np_.expm1(-integral))

    def t_from_log_snr(self, log_snr: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        # alpha / (1 - alpha**2) = ratio
        log_snr = at_least_float32(log_snr)
        np_ = array_module(log_snr)
        ratio = np_.exp(0.5 * log_snr)
        alpha = 2 * ratio / (1 + np_.sqrt(1 + 4 * ratio**2))
        return self.inverse_integral(-2 * np_.log(alpha))


@dataclasses.dataclass(frozen=True)
class RectifiedFlow(Schedule):
    """The paths are straight (Liu et al. 2022; Lipman et al. 2023): alpha = 1 - sigma, and sigma = t for shift 1.

    Attributes:
      shift: moves times towards noise: sigma = shift t / (1 + (shift - 1) t) (Esser et al. 2024, Eq. 23).
      t_min: the smallest time that training draws; the spacings that are even in the noise level end there.
    """

    shift: float = 1.0
    t_min: float = 1e-3

    def __post_init__(self) -> None:
        if not self.shift > 0:
            raise UserError(f"A schedule's shift must be above 0, not {self.shift}.")
        check_t_min(self.t_min)

    def sigma(self, t: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        t = at_least_float32(t)
        return self.shift * t / (1 + (self.shift - 1) * t)

    def alpha(self, t: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        t = at_least_float32(t)
        return (1 - t) / (1 + (self.shift - 1) * t)

    def log_snr(self, t: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        t = at_least_float32(t)
        np_ = array_module(t)
        with np.errstate(divide="ignore"):
            return 2 * (np_.log1p(-t) - np_.log(t) - np.log(self.shift))

    def t_from_log_snr(self, log_snr: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        ratio = 0.5 * at_least_float32(log_snr) + np.log(self.shift)
        return 1 / (1 + array_module(ratio).exp(ratio))

    def conditioning(self, t: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        return 1000.0 * self.sigma(t)
