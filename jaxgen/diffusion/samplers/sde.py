"""Walks along the reverse-time SDE of a schedule: Euler-Maruyama, and Euler steps with fresh noise."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.diffusion.process import added_noise_share
from jaxgen.diffusion.samplers.base import LinearSampler, Times
from jaxgen.diffusion.samplers.coefficients import Row, SolverCoefficients
from jaxgen.diffusion.schedules.base import Schedule
from jaxgen.errors import UserError


@dataclasses.dataclass(frozen=True)
class EulerMaruyama(LinearSampler):
    """Follows the SDE `dx = (f x - g**2 score) dt + g dw` backwards in time (Song et al. 2021, Eq. 6).

    The drift and the noise of each step are frozen at its start. The method is of weak order 1 and needs hundreds of
    steps for good samples.

    Attributes:
      noise_last: whether the last step adds noise too; it does not in the authors' code.
    """

    steps: int = 1000
    noise_last: bool = False

    def coefficients(self, schedule: Schedule, times: Times) -> SolverCoefficients:
        return SolverCoefficients.from_rows("epsilon", euler_maruyama_rows(schedule, times, self.noise_last))


def euler_maruyama_rows(schedule: Schedule, times: np.ndarray, noise_last: bool) -> list[Row]:
    """Returns one row of the coefficients for each step, in epsilon = -sigma score."""
    need_signal(schedule, times, "euler_maruyama")
    rate, g2 = drift_and_diffusion(schedule, times[:-1])
    dt, sigma = -np.diff(times), schedule.sigma(times)
    rows = []
    for i, (t, s) in enumerate(zip(times[:-1], times[1:], strict=True)):
        std = np.sqrt(g2[i] * dt[i]) if noise_last or i < len(dt) - 1 else 0.0
        rows.append({"t": t, "s": s, "move": 1 - rate[i] * dt[i], "step": [-g2[i] * dt[i] / sigma[i]], "noise": std})
    return rows


@dataclasses.dataclass(frozen=True)
class EulerAncestral(LinearSampler):
    """Takes an Euler step of the probability-flow ODE to a level below s, and adds noise up to the level of s.

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

    def coefficients(self, schedule: Schedule, times: Times) -> SolverCoefficients:
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
        return SolverCoefficients.from_rows("x0", rows)


def drift_and_diffusion(schedule: Schedule, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns f and g**2, float64, at `times`, of the forward SDE `dx = f x dt + g dw` whose marginals the schedule
    gives.

    f = alpha' / alpha and g**2 = -sigma**2 d log_snr / dt (Song et al. 2021, Eqs. 5, 29; Kingma et al. 2021,
    Appendix B), by differentiating the schedule itself. A discrete schedule's noise rate is constant between two
    levels; at a level it is that of the piece below, which is where the reverse process goes.
    """
    if schedule.steps:
        times = (np.ceil(times * schedule.steps - 1e-3) - 0.5) / schedule.steps
    with jax.ensure_compile_time_eval(), jax.enable_x64(True):  # float64 numbers, inside a traced sampler too
        t = jnp.asarray(times, jnp.float64)
        one = jnp.ones_like(t)
        alpha, alpha_rate = jax.jvp(schedule.alpha, (t,), (one,))
        rate = alpha_rate / alpha
        if schedule.steps:  # variance preserving: the noise makes up for what the shrinking takes
            g2 = -2 * rate
        else:
            g2 = -(schedule.sigma(t) ** 2) * jax.jvp(schedule.log_snr, (t,), (one,))[1]
        return np.asarray(rate), np.asarray(g2)


def need_signal(schedule: Schedule, times: np.ndarray, solver: str) -> None:
    """Raises a UserError where a solver that divides by alpha would start from noise without any signal."""
    if schedule.alpha(times[0]) < 1e-10:
        raise UserError(
            f"The solver {solver} cannot start at time {times[0]:g}, where this schedule leaves no signal; use "
            "ddim, euler_ancestral or dpmpp_2m_sde, or a schedule that keeps some."
        )
