"""Euler steps with fresh noise, as in k-diffusion."""

from __future__ import annotations

import dataclasses

import numpy as np

from jaxgen.diffusion.process import added_noise_share
from jaxgen.diffusion.samplers import Plan, Sampler
from jaxgen.diffusion.schedules import Schedule
from jaxgen.errors import UserError


@dataclasses.dataclass(frozen=True)
class EulerAncestral(Sampler):
    """An Euler step of the probability-flow ODE to below the level aimed at, and fresh noise up to it.

    In y = x / alpha and n = sigma / alpha (Karras et al. 2022, Eq. 1 with s(t) = 1) the step goes to `n_down`
    with `n_down**2 + n_up**2 = n_s**2`, and noise of standard deviation `n_up` follows (k-diffusion,
    `sample_euler_ancestral`). An Euler step there is a DDIM step (Song et al. 2020, Eq. 14), so for eta in [0, 1]
    this is DDIM with the same eta.

    Attributes:
      eta: how much of the old noise is replaced: 0 nothing, 1 as the posterior q(x_s | x_t, x_0) does; above 1
        more, up to all of it.
      flow: split the noise as is usual for rectified flow, for schedules with alpha + sigma = 1 only:
        sigma_down = sigma_s (1 + eta (sigma_s / sigma_t - 1)), then shrunk by alpha_s / alpha_down (diffusers,
        `LTXEulerAncestralRFScheduler`).
    """

    eta: float = 1.0
    flow: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.eta >= 0:
            raise UserError(f"config.sampler.eta is {self.eta}; it must be at least 0.")

    def plan(self, schedule: Schedule, times: np.ndarray) -> Plan:
        alpha, sigma = schedule.alpha(times), schedule.sigma(times)
        if self.flow and not np.allclose(alpha + sigma, 1, atol=1e-6):
            raise UserError("config.sampler.flow is for straight paths; set it to False or use rectified_flow.")
        rows = []
        for i, (t, s) in enumerate(zip(times[:-1], times[1:], strict=True)):
            if self.flow:
                down = sigma[i + 1] * max(1 + self.eta * (sigma[i + 1] / sigma[i] - 1), 0.0)
                old = alpha[i + 1] / (1 - down) * down
                std = np.sqrt(max(sigma[i + 1] ** 2 - old**2, 0.0))
            else:
                share = min(self.eta**2 * added_noise_share(schedule, t, s), 1.0) if self.eta else 0.0
                old, std = sigma[i + 1] * np.sqrt(1 - share), sigma[i + 1] * np.sqrt(share)
            # the old noise, now of standard deviation `old`, is that share of epsilon = (x - alpha_t x0) / sigma_t
            move = old / sigma[i]
            rows.append({"t": t, "s": s, "move": move, "step": [alpha[i + 1] - move * alpha[i]], "noise": std})
        return Plan.of("x0", rows)
