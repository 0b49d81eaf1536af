"""Holds the sampler DDIM (Song et al. 2020)."""

from __future__ import annotations

import dataclasses

import numpy as np

from jaxgen.diffusion.process import added_noise_share
from jaxgen.diffusion.samplers.base import LinearSampler, Times
from jaxgen.diffusion.samplers.coefficients import SolverCoefficients
from jaxgen.diffusion.schedules.base import Schedule
from jaxgen.errors import UserError


@dataclasses.dataclass(frozen=True)
class DDIM(LinearSampler):
    """DDIM is Song et al. (2020), Eq. 12, over any sub-sequence of the levels.

    Attributes:
      eta: 0 is deterministic, 1 has the posterior's variance (the `small` one of DDPM).
    """

    clip: bool = True
    eta: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.eta <= 1:
            raise UserError(f"config.sampler.eta is {self.eta}; DDIM's eta lies in [0, 1].")

    def coefficients(self, schedule: Schedule, times: Times) -> SolverCoefficients:
        alpha, sigma = schedule.alpha(times), schedule.sigma(times)
        rows = []
        for i, (t, s) in enumerate(zip(times[:-1], times[1:], strict=True)):
            std = self.eta * sigma[i + 1] * np.sqrt(added_noise_share(schedule, t, s)) if self.eta else 0.0  # Eq. 16
            # epsilon = (x - alpha_t x0) / sigma_t, and s gets this share of it
            share = np.sqrt(np.maximum(sigma[i + 1] ** 2 - std**2, 0)) / sigma[i]
            rows.append({"t": t, "s": s, "move": share, "step": [alpha[i + 1] - share * alpha[i]], "noise": std})
        return SolverCoefficients.from_rows("x0", rows)
