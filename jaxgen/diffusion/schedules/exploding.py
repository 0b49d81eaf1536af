"""Holds schedules of alpha = 1: the noise is added to the data, which are not shrunk."""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Float

from jaxgen.diffusion.schedules.base import Array, Schedule, array_module, at_least_float32
from jaxgen.errors import UserError


class _Exploding(Schedule):
    """alpha = 1: the noise is added to the data, which are not shrunk."""

    def alpha(self, t: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        return 0.0 * at_least_float32(t) + 1.0

    def log_snr(self, t: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        sigma = self.sigma(t)
        with np.errstate(divide="ignore"):
            return -2.0 * array_module(sigma).log(sigma)

    @property
    def prior_std(self) -> float:  # type: ignore[override]  # a schedule is only read
        return float(self.sigma(1.0))

    def conditioning(self, t: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """Returns c_noise of Karras et al. (2022), Table 1: log(sigma) / 4."""
        return -0.125 * self.log_snr(t)

    def input_scale(self, t: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """Returns c_in of Karras et al. (2022), Table 1."""
        sigma = self.sigma(t)
        return 1 / array_module(sigma).sqrt(sigma**2 + self.sigma_data**2)


@dataclasses.dataclass(frozen=True)
class VE(_Exploding):
    """The variance-exploding SDE (Song et al. 2021, Eq. 30-31) has alpha = 1, and sigma grows geometrically."""

    sigma_min: float = 0.01
    sigma_max: float = 50.0
    sigma_data: float = 0.5

    def __post_init__(self) -> None:
        _check_sigmas(self.sigma_min, self.sigma_max, self.sigma_data)

    def sigma(self, t: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        t = at_least_float32(t)
        return self.sigma_min * array_module(t).exp(t * np.log(self.sigma_max / self.sigma_min))

    def t_from_log_snr(self, log_snr: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        return (-0.5 * at_least_float32(log_snr) - np.log(self.sigma_min)) / np.log(self.sigma_max / self.sigma_min)


@dataclasses.dataclass(frozen=True)
class EDM(_Exploding):
    """The schedule has alpha = 1 and sigma = sigma_max t (Karras et al. 2022, Table 1).

    Use it with the spacing `karras`, the timestep sampler `log_normal` and the prediction type `edm`.
    """

    sigma_min: float = 0.002
    sigma_max: float = 80.0
    sigma_data: float = 0.5

    def __post_init__(self) -> None:
        _check_sigmas(self.sigma_min, self.sigma_max, self.sigma_data)

    @property
    def t_min(self) -> float:  # type: ignore[override]  # a schedule is only read
        return self.sigma_min / self.sigma_max

    def sigma(self, t: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        return self.sigma_max * at_least_float32(t)

    def t_from_log_snr(self, log_snr: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        log_snr = at_least_float32(log_snr)
        return array_module(log_snr).exp(-0.5 * log_snr) / self.sigma_max


def _check_sigmas(sigma_min: float, sigma_max: float, sigma_data: float) -> None:
    """Raises a UserError for sigmas that are out of order or not positive."""
    if not (0 < sigma_min < sigma_max and sigma_data > 0):
        raise UserError("A schedule's sigma_min must be above 0 and below its sigma_max, and sigma_data above 0.")
