"""Makes time grids: the decreasing times, from noise to data, that a sampler passes through."""

from __future__ import annotations

from typing import Literal

import numpy as np
from jaxtyping import Float

from jaxgen.diffusion.schedules import Schedule
from jaxgen.errors import UserError

Spacing = Literal["uniform", "linspace", "quadratic", "trailing", "leading", "log_snr", "karras"]

# Spacings that are even in the noise level begin at this log_snr where the schedule's end is darker: below it, x_t
# holds almost no signal
DARKEST = -12.0


def time_grid(spacing: Spacing, steps: int, schedule: Schedule, rho: float = 7.0) -> Float[np.ndarray, "N"]:
    """Returns `[steps + 1]` decreasing times from 1 to 0, float64, on the schedule's levels but for the last two.

    uniform: equal steps. trailing: another name for it (Lin et al. 2023, Table 2).
    leading: every (levels // steps)-th level from the first on: it does not begin at 1 (ibid.).
    linspace: equal steps from 1 to the schedule's t_min, then to 0 (ibid.).
    quadratic: equal steps of sqrt(t), denser near the data (Song et al. 2020, Appendix D.2).
    log_snr: equal steps of log_snr down to t_min, then to 0 (Lu et al. 2022, Section 3.4).
    karras: equal steps of (sigma / alpha)**(1 / rho) down to t_min, then to 0 (Karras et al. 2022, Eq. 5).

    Raises:
      UserError: where a discrete schedule has fewer levels than there are steps, or a level would be visited twice.
    """
    if steps < 1:
        raise UserError(f"A sampler's steps must be at least 1, not {steps}.")
    if schedule.steps and steps > schedule.steps:
        raise UserError(
            f"A sampler of {steps} steps needs as many noise levels; the schedule has {schedule.steps}. "
            f"Set config.sampler.steps to at most {schedule.steps}."
        )
    even = np.linspace(1.0, 0.0, steps + 1)
    if spacing in ("uniform", "trailing"):
        times = schedule.snap_to_levels(even)
    elif spacing == "quadratic":
        times = schedule.snap_to_levels(even**2)
    elif spacing == "leading":
        if not schedule.t_min:
            raise UserError("The leading spacing needs a schedule whose t_min is above 0; use the uniform spacing.")
        every = (schedule.steps // steps) / schedule.steps if schedule.steps else 1 / steps
        times = np.append(np.arange(steps)[::-1] * every + schedule.t_min, 0.0)
    else:
        times = _from_noise_to(schedule.t_min, spacing, steps, schedule, rho)
    if (np.diff(times) >= 0).any():
        raise UserError(
            f"The {spacing} spacing of {steps} steps visits a noise level of this schedule twice; "
            "use fewer steps or the uniform spacing."
        )
    return times


def _from_noise_to(end: float, spacing: Spacing, steps: int, schedule: Schedule, rho: float) -> np.ndarray:
    """Returns times from 1 to `end`, followed by 0 where `end` is above 0."""
    share = np.linspace(0.0, 1.0, steps if end > 0 else steps + 1)
    if spacing == "linspace":
        times = schedule.snap_to_levels(1 - share * (1 - end))
    else:
        dark, bright = max(float(schedule.log_snr(1.0)), DARKEST), float(schedule.log_snr(end))
        if spacing == "karras":
            high, low = np.exp(-0.5 * dark / rho), np.exp(-0.5 * bright / rho)
            log_snr = -2 * rho * np.log(high + share * (low - high))
        else:
            log_snr = dark + share * (bright - dark)
        times = schedule.t_from_log_snr(log_snr)
    times[0] = 1.0
    return np.append(times, 0.0) if end > 0 else np.append(times[:-1], 0.0)
