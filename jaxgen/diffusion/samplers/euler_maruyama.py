"""Euler-Maruyama on the reverse-time SDE (Song et al. 2021)."""

from __future__ import annotations

import dataclasses

import numpy as np

from jaxgen.diffusion.samplers import Plan, Sampler
from jaxgen.diffusion.samplers._sde import drift_and_diffusion, need_signal
from jaxgen.diffusion.schedules import Schedule


@dataclasses.dataclass(frozen=True)
class EulerMaruyama(Sampler):
    """Song et al. (2021), Eq. 6: `dx = (f x - g**2 score) dt + g dw` backwards in time, drift and noise of each step
    frozen at its start. The plain method: weak order 1, and hundreds of steps for good samples.

    Attributes:
      noise_last: whether the last step adds noise too; it does not in the authors' code.
    """

    steps: int = 1000
    noise_last: bool = False

    def plan(self, schedule: Schedule, times: np.ndarray) -> Plan:
        return Plan.of("epsilon", euler_maruyama_rows(schedule, times, self.noise_last))


def euler_maruyama_rows(schedule: Schedule, times: np.ndarray, noise_last: bool) -> list[dict]:
    """One row of a plan a step, in epsilon = -sigma score."""
    need_signal(schedule, times, "euler_maruyama")
    rate, g2 = drift_and_diffusion(schedule, times[:-1])
    dt, sigma = -np.diff(times), schedule.sigma(times)
    rows = []
    for i, (t, s) in enumerate(zip(times[:-1], times[1:], strict=True)):
        std = np.sqrt(g2[i] * dt[i]) if noise_last or i < len(dt) - 1 else 0.0
        rows.append({"t": t, "s": s, "move": 1 - rate[i] * dt[i], "step": [-g2[i] * dt[i] / sigma[i]], "noise": std})
    return rows
