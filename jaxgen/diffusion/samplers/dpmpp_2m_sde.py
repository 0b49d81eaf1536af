"""SDE-DPM-Solver++(2M) (Lu et al. 2022b)."""

from __future__ import annotations

import dataclasses
from typing import Literal

import numpy as np

from jaxgen.diffusion.samplers import Plan, Sampler
from jaxgen.diffusion.schedules import Schedule
from jaxgen.errors import UserError

Correction = Literal["midpoint", "heun"]


@dataclasses.dataclass(frozen=True)
class DPMpp2MSDE(Sampler):
    """SDE-DPM-Solver++(2M) of Lu et al. (2022b): the reverse SDE in lambda = log(alpha / sigma), solved exactly
    but for x0, which is extrapolated from the last two evaluations.

    The first step, and the last where it ends without noise, hold x0 constant.

    Attributes:
      eta: 1 the SDE of the paper, 0 the ODE and so DPM-Solver++(2M), between the two as in k-diffusion
        (`sample_dpmpp_2m_sde`): noise removed at the rate 1 + eta, and added at 2 eta.
      correction: how the slope of x0 enters: its effect at the interval's midpoint, or integrated exactly (heun).
    """

    eta: float = 1.0
    correction: Correction = "midpoint"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.eta >= 0:
            raise UserError(f"config.sampler.eta is {self.eta}; it must be at least 0.")

    def plan(self, schedule: Schedule, times: np.ndarray) -> Plan:
        alpha, sigma = schedule.alpha(times), schedule.sigma(times)
        h = 0.5 * np.diff(schedule.log_snr(times))  # infinite where the signal begins or the noise ends
        rows = []
        for i in range(len(times) - 1):
            noised = self.eta * h[i] if self.eta else 0.0
            decay = h[i] + noised
            move = sigma[i + 1] / sigma[i] * np.exp(-noised)
            whole = -alpha[i + 1] * np.expm1(-decay)
            std = sigma[i + 1] * np.sqrt(-np.expm1(-2 * noised))
            slope = 0.0
            if i and sigma[i + 1] > 0 and np.isfinite(h[i - 1]):
                # x0 changes by (m_0 - m_1) / h_{i-1} a unit of lambda
                weight = 0.5 * whole if self.correction == "midpoint" else alpha[i + 1] - whole / decay
                slope = weight * h[i] / h[i - 1]
            row = {"t": times[i], "s": times[i + 1], "move": move, "step": [whole + slope, -slope], "noise": std}
            rows.append(row)
        return Plan.of("x0", rows)
