"""Holds the object that the functions of this room take: a trained denoiser with its schedule and a solver."""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Float, Key

from jaxgen.arrays import Array
from jaxgen.diffusion.noise import per_image_noise
from jaxgen.diffusion.prediction import Denoiser
from jaxgen.diffusion.samplers.base import Sampler
from jaxgen.diffusion.samplers.ddim import DDIM
from jaxgen.diffusion.schedules.base import Schedule
from jaxgen.diffusion.spacing import time_grid


@dataclasses.dataclass(frozen=True)
class DiffusionModel:
    """Holds a denoiser with its schedule, and a solver.

    Attributes:
      denoise: `(x, t) -> Prediction`, with its condition filled in.
      schedule: the noise schedule that the denoiser was trained under.
      sampler: the solver that draws images.
    """

    denoise: Denoiser
    schedule: Schedule
    sampler: Sampler = DDIM(50, clip=False)

    @property
    def times(self) -> Float[np.ndarray, "steps+1"]:
        """Returns `[steps + 1]` decreasing times of the sampler, from 1 to 0."""
        return time_grid(self.sampler.spacing, self.sampler.steps, self.schedule)

    def start(self, keys: Key[Array, "B"], shape: tuple[int, ...]) -> Float[Array, "B *shape"]:
        """Returns `[B, *shape]` noise at t = 1, with which images with these keys `[B]` begin."""
        return self.schedule.prior_std * per_image_noise(keys, 0, shape)

    def draw(
        self, x: Float[Array, "B *shape"], keys: Key[Array, "B"], times: Float[np.ndarray, "N"]
    ) -> Float[Array, "B *shape"]:
        """Returns `[B, ...]` images: x taken along these times, with the noise of the keys `[B]`."""
        return self.sampler(self.denoise, self.schedule, x, keys, times=times)
