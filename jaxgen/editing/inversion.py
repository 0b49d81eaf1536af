"""DDIM inversion finds the latent from which the deterministic sampler draws a given image.

DDIM with eta = 0 solves an ordinary differential equation (Song et al. 2020, Eq. 14), which runs backwards too.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jaxgen.arrays import Array
from jaxgen.diffusion.samplers.base import Images, LinearSampler, Times, Trajectory
from jaxgen.diffusion.samplers.coefficients import SolverCoefficients
from jaxgen.diffusion.samplers.ddim import DDIM
from jaxgen.diffusion.schedules import Schedule
from jaxgen.diffusion.spacing import Spacing, time_grid
from jaxgen.editing.model import DiffusionModel
from jaxgen.errors import UserError


@dataclasses.dataclass(frozen=True)
class Inversion(LinearSampler):
    """DDIM's step read from right to left, for times that increase.

    The step from s down to t < s takes x_s to x_t = (alpha_t / alpha_s) x_s + c epsilon(x_s, s) (Song et al. 2020,
    Eq. 13). Its inverse is implicit: epsilon stands at the unknown x_s. The first guess evaluates
    it at x_t; each refinement evaluates it at the newest x_s, a fixed-point iteration (Pan et al. 2023,
    "Effective Real Image Editing with Accelerated Iterative Diffusion Inversion").
    The network is never evaluated at t = 0, where it was not trained.

    Attributes:
      refinements: further evaluations in each step. Where they converge, sampling at the same times gives the input
        back exactly; they do where steps are short, and may wander where epsilon changes fast, as between two modes.
    """

    refinements: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.refinements < 0:
            raise UserError(f"An inversion's refinements must be 0 or more, not {self.refinements}.")
        if self.self_recurrence != 1:
            raise UserError("An inversion takes each step once; leave self_recurrence at 1.")

    @property
    def evaluations_per_step(self) -> int:
        return 1 + self.refinements

    def coefficients(self, schedule: Schedule, times: Times) -> SolverCoefficients:
        alpha, sigma = schedule.alpha(times), schedule.sigma(times)
        rows = []
        for i, s in enumerate(times[1:]):
            move = alpha[i + 1] / alpha[i]
            step = sigma[i + 1] - move * sigma[i]
            for look in range(self.refinements + 1):
                again = {"keep": 1.0, "take": 0.0} if look else {}  # the step begins again from its x_t
                last = look == self.refinements
                rows.append({"t": s, "s": s, "move": move, "step": [step], "ends": last, **again})
        return SolverCoefficients.from_rows("epsilon", rows)


def invert(
    model: DiffusionModel,
    images: Images,
    steps: int = 50,
    spacing: Spacing = "uniform",
    refinements: int = 0,
    times: Times | None = None,
) -> Images:
    """Returns `[B, ...]` latents at the last time, t = 1, of `[B, ...]` images; it is deterministic.

    Args:
      steps, spacing: those of a sampler, whose times are passed backwards.
      refinements: see `Inversion`.
      times: increasing times of one's own, in place of `steps` and `spacing`; from 0 to 0.5 inverts half of the way.

    Raises:
      UserError: for times that do not increase.
    """
    times = time_grid(spacing, steps, model.schedule)[::-1] if times is None else np.asarray(times, np.float64)
    if len(times) < 2 or (np.diff(times) <= 0).any():
        raise UserError("An inversion walks from data to noise; give it at least two times, increasing.")
    return Inversion(len(times) - 1, refinements=refinements)(model.denoise, model.schedule, images, times=times)


def reconstruct(
    model: DiffusionModel, latents: Images, steps: int = 50, spacing: Spacing = "uniform", times: Times | None = None
) -> Images:
    """Returns `[B, ...]` images of `[B, ...]` latents by DDIM with eta = 0, without clipping: the inverse of `invert`.

    Args:
      times: decreasing; those of `invert`, reversed.
    """
    return DDIM(steps, spacing=spacing, clip=False)(model.denoise, model.schedule, latents, times=times)


def there_and_back(model: DiffusionModel, images: Images, steps: int = 50, frames: int = 8) -> Trajectory:
    """Returns `[1 + 2 frames, B, ...]`: the images, states on the way to their latents, and states on the way back."""
    times = time_grid("uniform", steps, model.schedule)
    solvers = Inversion(steps), DDIM(steps, clip=False)
    latents, there = solvers[0].trajectory(model.denoise, model.schedule, images, frames=frames, times=times[::-1])
    _, back = solvers[1].trajectory(model.denoise, model.schedule, latents, frames=frames, times=times)
    return jnp.concatenate([images[None], there, back])


def reconstruction_error(
    model: DiffusionModel,
    images: Images,
    steps: Sequence[int] = (10, 20, 50, 100),
    spacing: Spacing = "uniform",
    refinements: int = 0,
) -> Float[Array, "len(steps) B"]:
    """Returns `[len(steps), B]` mean squared errors per value of images inverted and drawn again at the same times.

    Song et al. (2020), Table 2 has them for CIFAR-10, there in units of [0, 1]: a quarter of those here.
    """
    errors = []
    for count in steps:
        latents = invert(model, images, count, spacing, refinements)
        back = reconstruct(model, latents, count, spacing)
        errors.append(jnp.square(back - images).reshape(len(images), -1).mean(axis=1))
    return jnp.stack(errors)
