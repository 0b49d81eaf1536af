"""The classical Runge-Kutta method for the probability-flow ODE."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from jaxgen.diffusion.samplers._runge_kutta import RungeKutta
from jaxgen.diffusion.spacing import Spacing


@dataclasses.dataclass(frozen=True)
class RK4(RungeKutta):
    """The classical Runge-Kutta method, of fourth order (Kutta 1901): four evaluations a step, one in the last:
    4 steps - 3.

    Attributes:
      variable: sigma, or time for continuous schedules without signal at t = 1.
    """

    spacing: Spacing = "karras"  # equal steps of time are far apart in sigma / alpha near noise

    evaluations_per_step: ClassVar[int] = 4
    a: ClassVar = ((0.5,), (0.0, 0.5), (0.0, 0.0, 1.0))
    b: ClassVar = (1 / 6, 1 / 3, 1 / 3, 1 / 6)
