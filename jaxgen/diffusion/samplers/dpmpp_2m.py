"""DPM-Solver++ (2M) (Lu et al. 2022b)."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import numpy as np

from jaxgen.diffusion.samplers import Plan, Sampler
from jaxgen.diffusion.samplers._exponential import LambdaGrid, adams, first, orders, second
from jaxgen.diffusion.schedules import Schedule

# with fewer steps than this the last ones are of lower order, where `lower_order_final` is set
FEW = 15


@dataclasses.dataclass(frozen=True)
class DPMpp2M(Sampler):
    """DPM-Solver++ (2M), multistep, of second order (Lu et al. 2022b, Algorithm 2): one evaluation a step.

    The first step is of first order, and so is one that ends without noise.

    Attributes:
      lower_order_final: below 15 steps the last one is of first order, which is steadier (the authors' code).
    """

    lower_order_final: bool = True

    order: ClassVar[int] = 2

    def plan(self, schedule: Schedule, times: np.ndarray) -> Plan:
        line, steps = LambdaGrid(schedule, times), len(times) - 1
        each = orders(self.order, steps, self.lower_order_final and steps < FEW)
        return Plan.of("x0", [line.row(i, self._weights(line.h(i), line.seen(i, each[i]))) for i in range(steps)])

    def _weights(self, h: float, nodes: np.ndarray) -> np.ndarray:
        if len(nodes) == 1:
            return first(h)
        return second(h, nodes[1]) if len(nodes) == 2 else adams(h, nodes)
