"""What samplers walk on: time grids from noise to data, and noise that belongs to one image each."""

from __future__ import annotations

from typing import Literal

import jax
import numpy as np

from jaxgen.diffusion.schedule import Schedule
from jaxgen.errors import UserError

Grid = Literal["uniform", "quadratic"]


def time_grid(name: Grid, steps: int, schedule: Schedule) -> np.ndarray:
    """`[steps + 1]` decreasing times from 1 to 0, on the schedule's levels.

    uniform: equal steps. quadratic: equal steps of sqrt(t), denser near the data (Song et al. 2020,
    Appendix D.2).

    Raises:
      UserError: where a discrete schedule has fewer levels than the grid wants.
    """
    if steps < 1:
        raise UserError(f"A sampler's steps must be at least 1, not {steps}.")
    if schedule.steps and steps > schedule.steps:
        raise UserError(
            f"A sampler of {steps} steps needs as many noise levels; the schedule has {schedule.steps}. "
            f"Set config.sampler.steps to at most {schedule.steps}."
        )
    even = np.linspace(1.0, 0.0, steps + 1)
    times = schedule.grid({"uniform": even, "quadratic": even**2}[name])
    if (np.diff(times) >= 0).any():
        raise UserError(
            f"The {name} grid of {steps} steps visits a noise level of this schedule twice; "
            "use fewer steps or the uniform grid."
        )
    return times


def noise(keys: jax.Array, index: jax.Array | int, shape: tuple[int, ...]) -> jax.Array:
    """`[B, *shape]` float32 standard normals; image i's depend on `keys[i]` and `index` alone."""
    return jax.vmap(lambda key: jax.random.normal(jax.random.fold_in(key, index), shape))(keys)
