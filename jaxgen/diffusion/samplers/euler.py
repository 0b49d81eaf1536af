"""Euler's method for the probability-flow ODE."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np

from jaxgen.diffusion.samplers import Plan
from jaxgen.diffusion.samplers._runge_kutta import RungeKutta
from jaxgen.diffusion.samplers.ddim import DDIM
from jaxgen.diffusion.schedules import Schedule


@dataclasses.dataclass(frozen=True)
class Euler(RungeKutta):
    """Euler's method, of first order: over sigma / alpha it is DDIM with eta 0 (Song et al. 2020, Section 4.3);
    over `time`, x + (s - t) velocity, the sampler of flow matching.

    Attributes:
      variable: sigma, for every schedule, zero signal at t = 1 included; time, for continuous ones.
    """

    def plan(self, schedule: Schedule, times: np.ndarray) -> Plan:
        if self.variable == "sigma":  # in the form that needs no signal at its start
            return DDIM(len(times) - 1).plan(schedule, times)
        return super().plan(schedule, times)

    def _step(self, schedule: Schedule, t: float, s: float) -> Iterator[dict[str, Any]]:
        yield {"t": t, "s": s, "move": 1.0, "step": [s - t]}
