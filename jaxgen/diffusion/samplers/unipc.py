"""Holds the sampler UniPC (Zhao et al. 2023)."""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

import numpy as np

from jaxgen.diffusion.samplers.base import LinearSampler, Times
from jaxgen.diffusion.samplers.coefficients import SolverCoefficients
from jaxgen.diffusion.samplers.exponential import LambdaGrid, adams, first, orders
from jaxgen.diffusion.schedules.base import Schedule
from jaxgen.errors import UserError


@dataclasses.dataclass(frozen=True)
class UniPC(LinearSampler):
    """UniPC has a multistep predictor of x0, and a corrector that costs no evaluation (Zhao et al. 2023, Section 3).

    The corrector (UniC) reuses the evaluation of the next step. It and the predictor (UniP) integrate the polynomial
    through the x0 predicted so far; the corrector includes the newest x0, which raises the order by one. B(h) enters
    only with two x0, where the paper takes a weight of 1/2 in place of the exact one. The last step is not corrected.
    Since the first steps have few x0, order 2 converges with order 3, and so, in the end, does order 3; with
    `lower_order_final` both converge with order 2.

    Attributes:
      order: 1, 2 or 3: how many x0 the predictor uses.
      variant: B(h) = h ("bh1") or exp(h) - 1 ("bh2"), the second written for x0 as 1 - exp(-h).
      corrector: whether the corrector runs; without it UniP is left.
      lower_order_final: fewer x0 in the last steps, one in the very last.
    """

    order: int = 2
    variant: Literal["bh1", "bh2"] = "bh2"
    corrector: bool = True
    lower_order_final: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.order not in (1, 2, 3):
            raise UserError(f"config.sampler.order is {self.order}; UniPC has the orders 1, 2 and 3.")

    def coefficients(self, schedule: Schedule, times: Times) -> SolverCoefficients:
        grid, steps = LambdaGrid(schedule, times), len(times) - 1
        each = orders(self.order, steps, self.lower_order_final)
        rows = []
        for i in range(steps):
            row = grid.row(i, self._weights(grid.h(i), grid.seen(i, each[i])))
            if self.corrector and i and math.isfinite(grid.h(i - 1)):
                nodes = grid.seen(i - 1, each[i - 1])
                row["keep"], row["take"] = grid.sigma[i] / grid.sigma[i - 1], 0.0
                row["correct"] = grid.alpha[i] * self._corrected(grid.h(i - 1), nodes)
            rows.append(row)
        return SolverCoefficients.from_rows("x0", rows)

    def _weights(self, h: float, nodes: np.ndarray) -> np.ndarray:
        if len(nodes) == 2:
            return self._half(h, nodes[1])
        return first(h) if len(nodes) == 1 else adams(h, nodes)

    def _corrected(self, h: float, nodes: np.ndarray) -> np.ndarray:
        """Returns weights of the x0 at the step's end and of those that the predictor used."""
        return self._half(h, 1.0)[::-1] if len(nodes) == 1 else adams(h, np.append(1.0, nodes))

    def _half(self, h: float, node: float) -> np.ndarray:
        """Returns the weights of two x0, at 0 and at `node`, with the weight 1/2."""
        b = h if self.variant == "bh1" else -math.expm1(-h)
        return np.append(first(h), 0.0) + 0.5 * b / node * np.asarray([-1.0, 1.0])
