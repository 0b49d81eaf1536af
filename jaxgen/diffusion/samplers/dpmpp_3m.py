"""DPM-Solver++ (3M), from the code of Lu et al. (2022b)."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import numpy as np

from jaxgen.diffusion.samplers._exponential import moments
from jaxgen.diffusion.samplers.dpmpp_2m import DPMpp2M


@dataclasses.dataclass(frozen=True)
class DPMpp3M(DPMpp2M):
    """DPM-Solver++ (3M), multistep: the parabola through the last three x0, one evaluation a step. The paper describes
    2M; this is its extension in the authors' code, mended.

    Of third order once it runs; its first two steps are of first and second order, which leaves an error of second
    order in the result.

    Attributes:
      lower_order_final: below 15 steps the last two are of second and first order.
      half_curvature: that code counts the parabola's curvature half (its singlestep solver does not), which makes
        every step of second order only; on for parity with it and with what copied it.
    """

    half_curvature: bool = False

    order: ClassVar[int] = 3

    def _weights(self, h: float, nodes: np.ndarray) -> np.ndarray:
        weights = super()._weights(h, nodes)
        if self.half_curvature and len(nodes) == 3:
            # the second divided difference of x0, which the moment of theta**2 multiplies
            bend = np.asarray([1 / np.prod([a - b for b in nodes if b != a]) for a in nodes])
            weights = weights - 0.5 * moments(h, 3)[2] * bend
        return weights
