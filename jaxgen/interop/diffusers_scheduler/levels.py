"""Computes which noise levels a scheduler of diffusers visits in a number of steps, as its `set_timesteps` does.

A scheduler counts its levels 0..T-1, while papers and `jaxgen.diffusion.schedules` count 1..T, so that level i there is
the time (i + 1) / T here. Some classes go to noise between two levels, and tell the network a level that is rounded.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Literal

import numpy as np
from jaxtyping import Float

from jaxgen.diffusion.schedules import Discrete, Schedule
from jaxgen.diffusion.schedules.base import Array, array_module
from jaxgen.errors import UserError
from jaxgen.interop.diffusers_scheduler.classes import PIPELINE, Family

OFFSET = PIPELINE["steps_offset"]
Sigmas = Literal["", "karras", "lu", "exponential", "beta"]
End = Literal["zero", "lowest level", "last sigma"]


@dataclasses.dataclass(frozen=True, eq=False)
class Walk(Discrete):
    """Tells the network other levels than those that the noise has, as some schedulers do.

    Attributes:
      base: the schedule.
      times: `[N]` decreasing times that are visited.
      told: `[N]` the levels, 0..T-1, that the network is told there; between these times, the difference from the true
        level is interpolated.
      prior_std: the standard deviation of the noise that sampling starts from.
    """

    base: Discrete
    times: np.ndarray
    told: np.ndarray
    prior_std: float = 1.0

    @property
    def betas(self) -> np.ndarray:
        return self.base.betas

    @property
    def steps(self) -> int:  # type: ignore[override]  # a schedule is only read
        return self.base.steps

    @functools.cached_property
    def _difference(self) -> tuple[np.ndarray, np.ndarray]:
        times, index = np.unique(self.times, return_index=True)  # increasing
        return times, self.told[index] * (1000 / self.steps) - self.base.conditioning(times)

    def conditioning(self, t: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        true = self.base.conditioning(t)
        np_ = array_module(true)
        kind = np_.result_type(true)
        times, difference = (np_.asarray(values, kind) for values in self._difference)
        return true + np_.interp(np_.asarray(t, kind), times, difference)


@dataclasses.dataclass(frozen=True)
class Levels:
    """Holds the levels that a scheduler visits.

    Attributes:
      family: how a spacing is computed. "step" and "sigma" take as many levels as there are steps, from level 0 or the
        offset on; "solver" takes one more and leaves out the lowest. "step" and "solver" round to whole levels.
      spacing: "leading", "trailing" or "linspace" (Lin et al. 2023, Table 2).
      sigmas: spaces sigma / alpha by a formula between the ends, which are those of the spacing ("sigma") or of the
        schedule ("solver"): "karras" (Karras et al. 2022, Eq. 5), "lu" (evenly in the logarithm), "exponential" (the
        same), or "beta" (quantiles of a beta distribution, Lee et al. 2024).
      rounded: whether the network is told a rounded level under the formulas "karras" and "lu". Under the others,
        "solver" cuts off the fraction.
      end: where the last step ends: without noise, at the lowest level, or where it began.
      log_linear: whether sigma / alpha is spaced evenly in its logarithm over the whole schedule, while the network is
        told the levels of the spacing (`interpolation_type`).
      sigma_min, sigma_max: the ends of the formulas, in place of those named above.
      lambda_min: levels whose log(alpha / sigma) is below this are left out.
    """

    family: Family = "step"
    spacing: str = "leading"
    sigmas: Sigmas = ""
    rounded: bool = False
    end: End = "zero"
    log_linear: bool = False
    sigma_min: float | None = None
    sigma_max: float | None = None
    lambda_min: float = -math.inf

    def walk(self, schedule: Discrete, steps: int) -> tuple[Schedule, np.ndarray]:
        """Returns the schedule to sample with, and the `[steps + 1]` times, float64, for `Sampler.__call__`.

        Raises:
          UserError: there are more steps than levels, or the levels do not fit the schedule.
        """
        levels = schedule.steps
        if not 1 <= steps <= levels:
            raise UserError(f"config.sampler.steps is {steps}; the schedule has {levels} levels to visit.")
        spaced = self._spaced(schedule, steps)
        if spaced[0] > levels - 1 or spaced[-1] < 0 or (np.diff(spaced) >= 0).any():
            raise UserError(
                f"the {self.spacing} spacing of {steps} steps does not fit {levels} levels; take fewer steps, or name "
                "another, such as config.sampler.spacing=uniform."
            )
        if self.sigmas or self.log_linear:
            visited, told, last = self._by_formula(schedule, spaced)
        else:
            visited, told, last = self._between_levels(schedule, spaced), spaced, None
        ends = {"zero": 0.0, "lowest level": 1 / levels, "last sigma": visited[-1]}
        times = np.append(visited, ends[self.end] if last is None else last)
        if (np.diff(times) > 0).any():
            raise UserError(
                f"the levels of {steps} steps do not decrease: sigma_min={self.sigma_min} and "
                f"sigma_max={self.sigma_max} of the scheduler's config do not fit its schedule."
            )
        start = float(schedule.sigma(times[0])) if self.starts_from_sigma else 1.0
        if start == 1 and np.array_equal(visited, (told + 1) / levels):
            return schedule, times
        return Walk(schedule, visited, told, start), times

    @property
    def starts_from_sigma(self) -> bool:
        """Returns whether sampling starts from noise of the first level's sigma in place of 1, as if there were no
        signal.
        """
        return self.family == "sigma" and self.spacing in ("linspace", "trailing")

    def _spaced(self, schedule: Discrete, steps: int) -> np.ndarray:
        """Returns the levels 0..T-1 of the spacing, the highest first; they may be fractions where family is sigma."""
        levels = schedule.steps
        most = levels - int((0.5 * schedule.log_snr(np.arange(1, levels + 1) / levels) < self.lambda_min).sum())
        more = int(self.family == "solver")
        if self.spacing == "leading":
            return np.arange(more, steps + more)[::-1] * (most // (steps + more)) + float(OFFSET)
        if self.spacing == "trailing":
            return np.round(np.arange(most, 0, -levels / steps))[:steps] - 1
        spaced = np.linspace(0, most - 1, steps + more)[::-1][:steps]
        return spaced if self.family == "sigma" else np.round(spaced)

    def _between_levels(self, schedule: Discrete, levels: np.ndarray) -> np.ndarray:
        """Returns the times of levels; between two levels sigma / alpha is interpolated, as diffusers does it."""
        times = (levels + 1) / schedule.steps
        between = levels != np.round(levels)
        if between.any():
            table = sigma_table(schedule).astype(np.float64)
            sigmas = np.interp(levels[between], np.arange(schedule.steps), table)
            times[between] = schedule.t_from_log_snr(-2 * np.log(sigmas))
        return times

    def _by_formula(self, schedule: Discrete, spaced: np.ndarray) -> tuple[np.ndarray, np.ndarray, float | None]:
        """Returns the times, the levels told to the network, and the time of the end where the formula gives it."""
        table, steps = sigma_table(schedule), len(spaced)
        sigmas = np.interp(spaced, np.arange(schedule.steps), table)
        if self.log_linear:
            sigmas = np.exp(np.linspace(np.log(table[-1]), np.log(table[0]), steps + 1))
        if not self.sigmas:
            times = self._times(schedule, sigmas)
            return times[:-1], spaced, float(times[-1])
        high, low = (table[-1], table[0]) if self.family == "solver" else (sigmas[0], sigmas[-1])
        high = float(high) if self.sigma_max is None or self.sigmas == "lu" else self.sigma_max
        low = float(low) if self.sigma_min is None or self.sigmas == "lu" else self.sigma_min
        sigmas = _formula(self.sigmas, high, low, steps)
        told = _level_of(sigmas, np.log(table))
        if self.rounded and self.sigmas in ("karras", "lu"):
            told = np.round(told)
        return self._times(schedule, sigmas), np.trunc(told) if self.family == "solver" else told, None

    def _times(self, schedule: Discrete, sigmas: np.ndarray) -> np.ndarray:
        highest = float(sigma_table(schedule)[-1])
        if not (np.isfinite(sigmas).all() and 0 < sigmas.min() and sigmas.max() <= highest * (1 + 1e-4)):
            raise UserError(
                f"the scheduler's config asks for a sigma / alpha of {sigmas.max():g}, where the noise of its betas "
                f"reaches {highest:g}: sigma_min and sigma_max must lie above 0 and not above that."
            )
        return schedule.t_from_log_snr(-2 * np.log(sigmas))


def sigma_table(schedule: Discrete) -> np.ndarray:
    """Returns sigma / alpha, `[T]` float32, of every level. diffusers computes it in float32, too, so that fractions
    are cut off at the same level."""
    alpha_bar = np.exp(schedule.log_alpha_bar[1:]).astype(np.float32)
    return ((1 - alpha_bar) / alpha_bar) ** np.float32(0.5)


def _formula(name: str, high: float, low: float, steps: int) -> np.ndarray:
    share = np.linspace(0, 1, steps)
    if name == "karras":
        high, low = high ** (1 / 7), low ** (1 / 7)
        return (high + share * (low - high)) ** 7
    if name == "beta":
        from scipy.special import betaincinv  # here, since it takes a tenth of a command's start

        return low + betaincinv(0.6, 0.6, 1 - share) * (high - low)
    return np.exp(np.linspace(math.log(high), math.log(low), steps))


def _level_of(sigmas: np.ndarray, log_sigmas: np.ndarray) -> np.ndarray:
    """Returns the levels of sigmas, interpolated in log(sigma), from 0 to T-1."""
    return np.interp(np.log(sigmas), log_sigmas.astype(np.float64), np.arange(len(log_sigmas)))
