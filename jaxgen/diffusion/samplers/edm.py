"""Holds the stochastic sampler of Karras et al. (2022)."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from jaxgen.diffusion.samplers.base import LinearSampler, Times
from jaxgen.diffusion.samplers.coefficients import SolverCoefficients
from jaxgen.diffusion.samplers.sde import need_signal
from jaxgen.diffusion.schedules.base import Schedule
from jaxgen.diffusion.spacing import Spacing
from jaxgen.errors import UserError


@dataclasses.dataclass(frozen=True)
class EDM(LinearSampler):
    """Adds noise ("churn"), then takes a Heun step of the flow (Karras et al. 2022, Algorithm 2).

    It works in y = x / alpha and n = sigma / alpha, where dy/dn = epsilon (their Eq. 3 with s(t) = 1), so it is right
    under any schedule; levels below are values of n. The step to t = 0 is Euler's: `2 steps - 1` evaluations.
    Without churn this is Heun's method. A frame of a trajectory has the next step's churn in it.

    Attributes:
      s_churn: the noise added in all steps together: a step from n starts from n (1 + gamma) with gamma =
        s_churn / steps, at most sqrt(2) - 1. Under a schedule whose alpha changes, no step starts beyond t = 1, and
        the first one adds none.
      s_min, s_max: the range of n in which noise is added.
      s_noise: the standard deviation of the added noise, divided by the one that leads to the level n (1 + gamma); the
        paper takes 1.003 to 1.007 against blur.
    """

    steps: int = 18
    spacing: Spacing = "karras"
    s_churn: float = 0.0
    s_min: float = 0.0
    s_max: float = math.inf
    s_noise: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (self.s_churn >= 0 and self.s_noise >= 0):
            raise UserError("config.sampler.s_churn and s_noise must be at least 0.")
        if not 0 <= self.s_min <= self.s_max:
            raise UserError("config.sampler.s_min must be at least 0 and at most s_max.")

    @property
    def evaluations_per_step(self) -> int:
        return 2

    @property
    def evaluations(self) -> int:
        """Returns how often the denoiser is called for one batch: the last step, to t = 0, takes one."""
        return (2 * self.steps - 1) * self.self_recurrence

    def coefficients(self, schedule: Schedule, times: Times) -> SolverCoefficients:
        need_signal(schedule, times, "edm")
        alpha, n = schedule.alpha(times), schedule.sigma(times) / schedule.alpha(times)
        hat = np.append([self._churned(schedule, t, len(times) - 1) for t in times[:-1]], times[-1])
        if schedule.alpha(hat[0]) != alpha[0]:
            hat[0] = times[0]
        alpha_hat, n_hat = schedule.alpha(hat), schedule.sigma(hat) / schedule.alpha(hat)
        added = self.s_noise * alpha_hat * np.sqrt(np.maximum(n_hat**2 - n**2, 0))  # line 6
        rows = []
        for i in range(len(times) - 1):
            # lines 7-8: Euler from the churned level; the state is alpha times y
            change = n[i + 1] - n_hat[i]
            row = {"t": hat[i], "s": times[i + 1], "move": alpha[i + 1] / alpha_hat[i]}
            rows.append({**row, "step": [alpha[i + 1] * change]})
            if times[i + 1] == 0 or n[i + 1] == 0:  # the network was not trained on data without noise
                break
            rows[-1]["ends"] = False
            # lines 10-11: the mean of both slopes; line 6 of the next step in the same row
            half = alpha_hat[i + 1] * change / 2
            row = {"t": times[i + 1], "s": hat[i + 1], "keep": 1.0, "take": 0.0, "step": [half, half]}
            rows.append({**row, "move": alpha_hat[i + 1] / alpha_hat[i], "noise": added[i + 1]})
        return SolverCoefficients.from_rows("epsilon", rows, before=float(added[0]))

    def _churned(self, schedule: Schedule, t: float, steps: int) -> float:
        """Returns (line 5) the time at which the noise is 1 + gamma times that of t."""
        log_snr = schedule.log_snr(t)
        gamma = min(self.s_churn / steps, math.sqrt(2) - 1) if self.s_min <= np.exp(-0.5 * log_snr) <= self.s_max else 0
        if not gamma:
            return t
        hat = float(schedule.t_from_log_snr(log_snr - 2 * math.log1p(gamma)))
        return hat if schedule.alpha(hat) == schedule.alpha(t) else min(hat, 1.0)
