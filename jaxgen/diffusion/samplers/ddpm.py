"""Holds ancestral sampling (Ho et al. 2020, Algorithm 2)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.diffusion.prediction import Prediction, reverse_log_variance
from jaxgen.diffusion.process import added_noise_share
from jaxgen.diffusion.samplers.base import Images, LinearSampler, Times
from jaxgen.diffusion.samplers.coefficients import SolverCoefficients
from jaxgen.diffusion.schedules.base import Schedule
from jaxgen.errors import UserError

Variance = Literal["small", "large", "learned"]


@dataclasses.dataclass(frozen=True)
class DDPM(LinearSampler):
    """This is ancestral sampling (Ho et al. 2020, Algorithm 2), over any sub-sequence of the levels.

    Attributes:
      variance: the variance of p(x_s | x_t). `small` is that of q(x_s | x_t, x_0); `large` is that of all noise added
        between s and t (beta_t; Ho et al., Section 3.2); `learned` is between the two, where the network puts it
        (Nichol & Dhariwal 2021, Eq. 15). The last step adds no noise.
    """

    steps: int = 1000
    clip: bool = True
    variance: Variance = "small"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.variance == "learned" and self.self_recurrence > 1:
            raise UserError("config.sampler.self_recurrence needs config.sampler.variance small or large.")

    def coefficients(self, schedule: Schedule, times: Times) -> SolverCoefficients:
        alpha, sigma = schedule.alpha(times), schedule.sigma(times)
        rows = []
        for i, (t, s) in enumerate(zip(times[:-1], times[1:], strict=True)):
            fresh = added_noise_share(schedule, t, s)
            std = np.sqrt(fresh) * (sigma[i] if self.variance == "large" else sigma[i + 1])
            if self.variance == "learned":
                std = 1.0
            # the mean of q(x_s | x_t, x_0): Eq. 7
            move = alpha[i] / alpha[i + 1] * (sigma[i + 1] / sigma[i]) ** 2
            row = {"t": t, "s": s, "move": move, "step": [alpha[i + 1] * fresh]}
            rows.append({**row, "noise": std if sigma[i + 1] > 0 else 0.0})
        return SolverCoefficients.from_rows("x0", rows)

    def scaled_noise(self, now: Prediction, row: Mapping[str, jax.Array], z: Images) -> Images:
        if self.variance == "learned":
            z = jnp.exp(0.5 * reverse_log_variance(now, row["s"])) * z
        return row["noise"] * z
