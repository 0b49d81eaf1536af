"""Heun's method for the probability-flow ODE (Karras et al. 2022)."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from jaxgen.diffusion.samplers._runge_kutta import RungeKutta
from jaxgen.diffusion.spacing import Spacing


@dataclasses.dataclass(frozen=True)
class Heun(RungeKutta):
    """Heun's method, of second order (Karras et al. 2022, Algorithm 1): Euler's step, corrected by the mean of the
    slopes at its two ends. Two evaluations a step, one in the last: 2 steps - 1.

    Attributes:
      variable: sigma, as in the paper, or time, for continuous schedules without signal at t = 1.
    """

    spacing: Spacing = "karras"  # equal steps of time are far apart in sigma / alpha near noise

    evaluations_per_step: ClassVar[int] = 2
    a: ClassVar = ((1.0,),)
    b: ClassVar = (0.5, 0.5)
