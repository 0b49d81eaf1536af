"""Holds DPM-Solver++ (Lu et al. 2022b): singlestep (1S, 2S, 3S), multistep (2M, 3M) and of the SDE (2M)."""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Literal

import numpy as np

from jaxgen.diffusion.samplers.base import LinearSampler, Times
from jaxgen.diffusion.samplers.coefficients import Row, SolverCoefficients
from jaxgen.diffusion.samplers.exponential import FAINTEST, LambdaGrid, adams, first, moments, orders, second
from jaxgen.diffusion.schedules.base import Schedule
from jaxgen.errors import UserError

# where a step evaluates the network between its ends, as shares of the step in lambda
BETWEEN: dict[int, tuple[float, ...]] = {1: (), 2: (1 / 2,), 3: (1 / 3, 2 / 3)}


@dataclasses.dataclass(frozen=True)
class DPMpp1S(LinearSampler):
    """This is singlestep DPM-Solver++: each step of `order` evaluations uses nothing of the steps before it.

    Order 1 is DDIM with eta 0; 2 is Lu et al. (2022b), Algorithm 1 (2S), which evaluates half-way; 3 (3S) evaluates at
    a third and two thirds of the step (Lu et al. 2022a, Algorithm 2, written for x0). A step that ends where there is
    no noise, or at t = 0, is of first order, with one evaluation; one that starts where there is no signal is `order`
    steps of first order.

    Attributes:
      order: 1, 2 or 3, the number in the paper's names.
    """

    config_name: ClassVar[str] = "dpmpp_1s"

    order: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.order not in BETWEEN:
            raise UserError(f"config.sampler.order is {self.order}; the solver has the orders 1, 2 and 3.")

    @property
    def evaluations_per_step(self) -> int:
        return self.order

    @property
    def evaluations(self) -> int:
        """Returns how often the denoiser is called for one batch: the last step, to t = 0, takes one."""
        return (self.order * (self.steps - 1) + 1) * self.self_recurrence

    def coefficients(self, schedule: Schedule, times: Times) -> SolverCoefficients:
        steps = [self._step(schedule, t, s) for t, s in zip(times[:-1], times[1:], strict=True)]
        return SolverCoefficients.from_rows("x0", [row for step in steps for row in step])

    def _step(self, schedule: Schedule, t: float, s: float) -> list[Row]:
        if s == 0 or schedule.sigma(s) == 0:
            grid = LambdaGrid(schedule, [t, s])
            return [grid.row(0, first(grid.h(0)))]
        if schedule.alpha(t) < FAINTEST:
            grid = LambdaGrid(schedule, np.linspace(t, s, self.order + 1))
            rows = [grid.row(i, first(grid.h(i))) for i in range(self.order)]
            return [{**row, "ends": i == self.order - 1} for i, row in enumerate(rows)]
        shares = np.asarray([0.0, *BETWEEN[self.order], 1.0])
        start, end = schedule.log_snr(np.asarray([t, s]))
        grid = LambdaGrid(schedule, [t, *schedule.t_from_log_snr(start + shares[1:-1] * (end - start)), s])
        rows = []
        for i, share in enumerate(shares[1:]):
            h = share * 0.5 * (end - start)
            if i == 0:
                weights = first(h)
            elif i == 1:
                weights = second(h, shares[1] / share)
            else:  # the line through the x0 at 0 and at two thirds
                weights = np.insert(adams(h, shares[[0, 2]]), 1, 0.0)
            rows.append(
                {
                    **grid.row(i, weights[::-1]),
                    "keep": float(i > 0),
                    "take": float(i == 0),
                    "move": grid.sigma[i + 1] / grid.sigma[0],
                    "ends": i == self.order - 1,
                }
            )
        return rows


# with fewer steps than this the last ones are of lower order, where `lower_order_final` is set
FEW = 15


@dataclasses.dataclass(frozen=True)
class DPMpp2M(LinearSampler):
    """DPM-Solver++ (2M) is a multistep method of second order (Lu et al. 2022b, Algorithm 2).

    It makes one evaluation a step. The first step is of first order, and so is one that ends without noise.

    Attributes:
      lower_order_final: below 15 steps the last one is of first order, which is steadier (the authors' code).
    """

    config_name: ClassVar[str] = "dpmpp_2m"

    lower_order_final: bool = True

    order: ClassVar[int] = 2

    def coefficients(self, schedule: Schedule, times: Times) -> SolverCoefficients:
        grid, steps = LambdaGrid(schedule, times), len(times) - 1
        each = orders(self.order, steps, self.lower_order_final and steps < FEW)
        return SolverCoefficients.from_rows(
            "x0", [grid.row(i, self._weights(grid.h(i), grid.seen(i, each[i]))) for i in range(steps)]
        )

    def _weights(self, h: float, nodes: np.ndarray) -> np.ndarray:
        if len(nodes) == 1:
            return first(h)
        return second(h, nodes[1]) if len(nodes) == 2 else adams(h, nodes)


@dataclasses.dataclass(frozen=True)
class DPMpp3M(DPMpp2M):
    """DPM-Solver++ (3M) is a multistep method: it fits a parabola to the last three x0, with one evaluation a step.

    The paper describes 2M; this is its extension in the authors' code, corrected.

    Its steps are of third order but for the first two, which are of first and second order and leave an error of second
    order in the result.

    Attributes:
      lower_order_final: below 15 steps the last two are of second and first order.
      half_curvature: whether the parabola's curvature counts half, as in that code (but not in its singlestep solver).
        Every step is then of second order only. It gives the numbers of that code and of its copies.
    """

    config_name: ClassVar[str] = "dpmpp_3m"

    half_curvature: bool = False

    order: ClassVar[int] = 3

    def _weights(self, h: float, nodes: np.ndarray) -> np.ndarray:
        weights = super()._weights(h, nodes)
        if self.half_curvature and len(nodes) == 3:
            # the second divided difference of x0, which the moment of theta**2 multiplies
            bend = np.asarray([1 / np.prod([a - b for b in nodes if b != a]) for a in nodes])
            weights = weights - 0.5 * moments(h, 3)[2] * bend
        return weights


Correction = Literal["midpoint", "heun"]


@dataclasses.dataclass(frozen=True)
class DPMpp2MSDE(LinearSampler):
    """SDE-DPM-Solver++(2M) of Lu et al. (2022b): the reverse SDE in lambda = log(alpha / sigma), solved exactly
    but for x0, which is extrapolated from the last two evaluations.

    The first step, and the last where it ends without noise, hold x0 constant.

    Attributes:
      eta: 1 is the SDE of the paper, 0 the ODE and so DPM-Solver++(2M). Values between are those of k-diffusion
        (`sample_dpmpp_2m_sde`): noise is removed at the rate 1 + eta and added at the rate 2 eta.
      correction: how the slope of x0 enters: midpoint takes its effect at the interval's middle, heun integrates it
        exactly.
    """

    config_name: ClassVar[str] = "dpmpp_2m_sde"

    eta: float = 1.0
    correction: Correction = "midpoint"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.eta >= 0:
            raise UserError(f"config.sampler.eta is {self.eta}; it must be at least 0.")

    def coefficients(self, schedule: Schedule, times: Times) -> SolverCoefficients:
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
        return SolverCoefficients.from_rows("x0", rows)
