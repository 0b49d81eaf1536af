"""Holds explicit Runge-Kutta methods for the probability-flow ODE, as tables.

The ODE (Song et al. 2021, Eq. 13) can be integrated over two variables:

    sigma   y = x / alpha over u = sigma / alpha:  dy/du = epsilon  (Song et al. 2020, Eq. 14; Karras et al. 2022,
            Eq. 4 with s(t) = alpha, where the slope (y - x0) / u is epsilon)
    time    x over t:  dx/dt = velocity  (Lipman et al. 2023, Eq. 1)
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Iterator, Sequence
from typing import ClassVar, Literal

import numpy as np

from jaxgen.diffusion.samplers.base import LinearSampler, Times
from jaxgen.diffusion.samplers.coefficients import Row, SolverCoefficients
from jaxgen.diffusion.samplers.ddim import DDIM
from jaxgen.diffusion.samplers.exponential import FAINTEST
from jaxgen.diffusion.schedules.base import Schedule
from jaxgen.diffusion.spacing import Spacing
from jaxgen.errors import UserError

Variable = Literal["sigma", "time"]


@dataclasses.dataclass(frozen=True)
class RungeKutta(LinearSampler):
    """This is an explicit Runge-Kutta method with the tableau `a`, `b` of its class.

    A step that ends where there is no noise, or at t = 0, is Euler's, of one evaluation: no solver evaluates the
    network at t = 0, where it was not trained.

    Attributes:
      variable: what is integrated over. `sigma` needs a signal at the first time and cannot start rectified flow;
        `time` needs a continuous schedule.
    """

    variable: Variable = "sigma"

    @property
    @abc.abstractmethod
    def a(self) -> Sequence[Sequence[float]]:
        """Returns a of Butcher's tableau: a[i] are the weights of the slopes that lead to evaluation i + 1.

        Its point is reached at the share sum(a[i]) of the step.
        """

    @property
    @abc.abstractmethod
    def b(self) -> Sequence[float]:
        """Returns b of Butcher's tableau: the weights of the slopes that lead to the step's end."""

    @property
    def evaluations_per_step(self) -> int:
        return len(self.b)

    @property
    def evaluations(self) -> int:
        """Returns how often the denoiser is called for one batch: the last step, to t = 0, takes one."""
        return (self.evaluations_per_step * (self.steps - 1) + 1) * self.self_recurrence

    def coefficients(self, schedule: Schedule, times: Times) -> SolverCoefficients:
        if self.variable == "time" and schedule.steps:
            raise UserError(
                "config.sampler.variable 'time' needs a continuous schedule, whose alpha and sigma have a slope at "
                "every time; use 'sigma' with a discrete one."
            )
        rows: list[Row] = []
        for t, s in zip(times[:-1], times[1:], strict=True):
            rows += self._step(schedule, t, s)
        return SolverCoefficients.from_rows("epsilon" if self.variable == "sigma" else "velocity", rows)

    def _step(self, schedule: Schedule, t: float, s: float) -> Iterator[Row]:
        a, b = (self.a, self.b) if s > 0 and schedule.sigma(s) > 0 else ((), (1.0,))
        shares = [0.0, *(sum(row) for row in a), 1.0]
        at, reach = self._line(schedule, t, s, np.asarray(shares))
        scale = schedule.alpha(at) if self.variable == "sigma" else np.ones_like(at)
        for i, weights in enumerate([*a, b]):
            yield {
                "t": at[i],
                "s": at[i + 1],
                "keep": float(i > 0),
                "take": float(i == 0),
                "move": scale[i + 1] / scale[0],
                "step": scale[i + 1] * reach * np.asarray(weights[::-1]),  # the newest slope first
                "ends": i == len(a),
            }

    def _line(self, schedule: Schedule, t: float, s: float, shares: np.ndarray) -> tuple[np.ndarray, float]:
        """Returns the times at these shares of a step, and how far the step reaches in the variable."""
        if self.variable == "time":
            return t + shares * (s - t), s - t
        if schedule.alpha(t) < FAINTEST:
            raise UserError(
                f"The solver {type(self).__name__} cannot step over sigma / alpha from time {t:g}, where this schedule "
                "leaves no signal; set config.sampler.variable to 'time', or use euler, dpmpp_2m or unipc."
            )
        start, end = schedule.sigma(t) / schedule.alpha(t), schedule.sigma(s) / schedule.alpha(s)
        at = schedule.t_from_log_snr(-2 * np.log(start + shares * (end - start)))
        at[shares == 0], at[shares == 1] = t, s
        return at, end - start


@dataclasses.dataclass(frozen=True)
class Euler(RungeKutta):
    """Euler's method, of first order: over sigma / alpha it is DDIM with eta 0 (Song et al. 2020, Section 4.3);
    over `time`, x + (s - t) velocity, the sampler of flow matching.

    Attributes:
      variable: sigma, for every schedule, zero signal at t = 1 included; time, for continuous ones.
    """

    a: ClassVar = ()
    b: ClassVar = (1.0,)

    def coefficients(self, schedule: Schedule, times: Times) -> SolverCoefficients:
        if self.variable == "sigma":  # written so that it needs no signal at its start
            return DDIM(len(times) - 1).coefficients(schedule, times)
        return super().coefficients(schedule, times)

    def _step(self, schedule: Schedule, t: float, s: float) -> Iterator[Row]:
        yield {"t": t, "s": s, "move": 1.0, "step": [s - t]}


@dataclasses.dataclass(frozen=True)
class Heun(RungeKutta):
    """Heun's method, of second order (Karras et al. 2022, Algorithm 1): Euler's step, corrected by the mean of the
    slopes at its two ends. It makes two evaluations a step and one in the last: 2 steps - 1.

    Attributes:
      variable: sigma, as in the paper, or time, for continuous schedules without signal at t = 1.
    """

    spacing: Spacing = "karras"  # equal steps of time are far apart in sigma / alpha near noise

    a: ClassVar = ((1.0,),)
    b: ClassVar = (0.5, 0.5)


@dataclasses.dataclass(frozen=True)
class RK4(RungeKutta):
    """This is the classical Runge-Kutta method, of fourth order (Kutta 1901), with 4 steps - 3 evaluations.

    Attributes:
      variable: sigma, or time for continuous schedules without signal at t = 1.
    """

    spacing: Spacing = "karras"  # equal steps of time are far apart in sigma / alpha near noise

    a: ClassVar = ((0.5,), (0.0, 0.5), (0.0, 0.0, 1.0))
    b: ClassVar = (1 / 6, 1 / 3, 1 / 3, 1 / 6)
