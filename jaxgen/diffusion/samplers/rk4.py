"""The classical Runge-Kutta method for the probability-flow ODE."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from jaxgen.diffusion.grid import Grid
from jaxgen.diffusion.samplers._runge_kutta import RungeKutta


@dataclasses.dataclass(frozen=True)
class RK4(RungeKutta):
    """The classical Runge-Kutta method, of fourth order (Kutta 1901): four evaluations a step, one in the last:
    4 steps - 3.

    Attributes:
      variable: sigma, or time for continuous schedules without signal at t = 1.
    """

    grid: Grid = "karras"  # equal steps of time are far apart in sigma / alpha near noise

    stages: ClassVar[int] = 4
    a: ClassVar = ((0.5,), (0.0, 0.5), (0.0, 0.0, 1.0))
    b: ClassVar = (1 / 6, 1 / 3, 1 / 3, 1 / 6)
