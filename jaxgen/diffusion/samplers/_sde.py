"""The reverse-time SDE of a schedule, for the solvers that step along it."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.diffusion.schedules import Schedule
from jaxgen.errors import UserError


def drift_and_diffusion(schedule: Schedule, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """f and g**2 of the forward SDE `dx = f x dt + g dw` whose marginals the schedule gives, float64, like `times`.

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
