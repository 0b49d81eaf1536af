"""DPM-Solver++, singlestep (Lu et al. 2022b): 1S, 2S and 3S."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from jaxgen.diffusion.samplers import Plan, Sampler
from jaxgen.diffusion.samplers._exponential import FAINTEST, LambdaGrid, adams, first, second
from jaxgen.diffusion.schedules import Schedule
from jaxgen.errors import UserError

# where a step looks between its ends, as shares of its way in lambda
BETWEEN = {1: (), 2: (1 / 2,), 3: (1 / 3, 2 / 3)}


@dataclasses.dataclass(frozen=True)
class DPMpp1S(Sampler):
    """DPM-Solver++, singlestep: every step stands on its own, of `order` evaluations.

    Order 1 is DDIM with eta 0; 2 is Lu et al. (2022b), Algorithm 1 (2S), looking half-way; 3 (3S) looks at a third
    and two thirds of the way (Lu et al. 2022a, Algorithm 2, in the data's form). A step that ends where there is no
    noise, or at t = 0, is of first order, with one evaluation; one that starts where there is no signal is `order`
    steps of first order.

    Attributes:
      order: 1, 2 or 3, the number in the paper's names.
    """

    order: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.order not in BETWEEN:
            raise UserError(f"config.sampler.order is {self.order}; the solver has the orders 1, 2 and 3.")

    @property
    def evaluations(self) -> int:
        """How often the denoiser is called for one batch: the last step, to t = 0, takes one."""
        return (self.order * (self.steps - 1) + 1) * self.self_recurrence

    def plan(self, schedule: Schedule, times: np.ndarray) -> Plan:
        steps = [self._step(schedule, t, s) for t, s in zip(times[:-1], times[1:], strict=True)]
        return Plan.of("x0", [row for step in steps for row in step])

    def _step(self, schedule: Schedule, t: float, s: float) -> list[dict[str, Any]]:
        if s == 0 or schedule.sigma(s) == 0:
            line = LambdaGrid(schedule, [t, s])
            return [line.row(0, first(line.h(0)))]
        if schedule.alpha(t) < FAINTEST:
            line = LambdaGrid(schedule, np.linspace(t, s, self.order + 1))
            rows = [line.row(i, first(line.h(i))) for i in range(self.order)]
            return [{**row, "ends": i == self.order - 1} for i, row in enumerate(rows)]
        shares = np.asarray([0.0, *BETWEEN[self.order], 1.0])
        start, end = schedule.log_snr(np.asarray([t, s]))
        line = LambdaGrid(schedule, [t, *schedule.t_from_log_snr(start + shares[1:-1] * (end - start)), s])
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
                    **line.row(i, weights[::-1]),
                    "keep": float(i > 0),
                    "take": float(i == 0),
                    "move": line.sigma[i + 1] / line.sigma[0],
                    "ends": i == self.order - 1,
                }
            )
        return rows
