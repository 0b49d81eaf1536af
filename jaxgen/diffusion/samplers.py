"""Samplers: from noise to images in one `lax.scan` over a time grid.

A sampler is `(denoise, schedule, x, keys) -> x`, pure and jit-able: `denoise(x, t) -> Prediction` with scalar t, `x`
`[B, ...]` at the grid's first time, `keys` one key per image, so that image i depends on its own key alone,
whatever the batch. `evaluations` says how often `denoise` runs before it runs.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.diffusion.grid import Grid, noise, time_grid
from jaxgen.diffusion.prediction import Denoiser, Prediction, fresh_noise, posterior
from jaxgen.diffusion.schedule import Schedule
from jaxgen.errors import UserError

Variance = Literal["small", "large"]


class Sampler:
    """The contract of a sampler. One-step methods fill in `step`.

    Attributes:
      steps: number of steps of the grid.
      grid: how the times are spaced.
      clip: whether x0 is clipped to [-1, 1] at each step, as Ho et al. do.
    """

    steps: int
    grid: Grid
    clip: bool

    @property
    def evaluations(self) -> int:
        """How often the denoiser is called for one batch."""
        return self.steps

    def step(self, now: Prediction, t: jax.Array, s: jax.Array, fresh: jax.Array) -> jax.Array:
        """x at time s < t from the prediction at t and standard normal noise, all `[B, ...]`."""
        raise NotImplementedError

    def __call__(
        self,
        denoise: Denoiser,
        schedule: Schedule,
        x: jax.Array,
        keys: jax.Array,
        frames: int = 0,
    ) -> jax.Array | tuple[jax.Array, jax.Array]:
        """Runs the grid.

        Args:
          x: `[B, ...]` float32 noise at t = 1.
          keys: `[B]` random keys.
          frames: also return the trajectory, thinned to so many states, `[frames, B, ...]`: the states after
            equal shares of the steps, the last one the result.
        """
        times = time_grid(self.grid, self.steps, schedule)
        if not 0 <= frames <= self.steps:
            raise UserError(f"A trajectory of {self.steps} steps has no {frames} frames; ask for fewer.")
        # each step writes its state into its frame; the last writer of a frame stays
        frame = np.arange(self.steps) * frames // self.steps

        def body(carry: tuple[jax.Array, jax.Array], step: tuple[jax.Array, ...]):
            x, kept = carry
            index, t, s, slot = step
            now = denoise(x, t)
            if self.clip:
                now = now.clip()
            x = self.step(now, t, s, noise(keys, index + 1, x.shape[1:]).astype(x.dtype))
            if frames:
                kept = kept.at[slot].set(x)
            return (x, kept), None

        kept = jnp.zeros((frames, *x.shape), x.dtype)
        grid = (np.arange(self.steps), times[:-1].astype(x.dtype), times[1:].astype(x.dtype), frame)
        (x, kept), _ = jax.lax.scan(body, (x, kept), jax.tree.map(jnp.asarray, grid))
        return (x, kept) if frames else x


@dataclasses.dataclass(frozen=True)
class DDPM(Sampler):
    """Ancestral sampling (Ho et al. 2020, Algorithm 2), over any sub-sequence of the levels.

    Attributes:
      variance: of p(x_s | x_t): small, that of q(x_s | x_t, x_0), or large, all the noise added between s and
        t (beta_t; Ho et al., Section 3.2). The last step adds none.
    """

    steps: int = 1000
    grid: Grid = "uniform"
    clip: bool = True
    variance: Variance = "small"

    def step(self, now: Prediction, t: jax.Array, s: jax.Array, fresh: jax.Array) -> jax.Array:
        of_x, of_x0, variance = posterior(now.schedule, t, s, now.x)
        if self.variance == "large":
            variance = fresh_noise(now.schedule, t, s) * now.schedule.sigma(t) ** 2
        std = jnp.where(s > 0, jnp.sqrt(variance), 0.0)
        return of_x * now.x + of_x0 * now.x0 + std * fresh


@dataclasses.dataclass(frozen=True)
class DDIM(Sampler):
    """Song et al. (2020), Eq. 12, over any sub-sequence of the levels.

    Attributes:
      eta: 0 is deterministic, 1 has the posterior's variance (the `small` one of DDPM).
    """

    steps: int = 50
    grid: Grid = "uniform"
    clip: bool = True
    eta: float = 0.0

    def step(self, now: Prediction, t: jax.Array, s: jax.Array, fresh: jax.Array) -> jax.Array:
        alpha_s, sigma_s = now.schedule.alpha(s), now.schedule.sigma(s)
        std = self.eta * sigma_s * jnp.sqrt(fresh_noise(now.schedule, t, s))  # Eq. 16
        direction = jnp.sqrt(jnp.maximum(sigma_s**2 - std**2, 0.0)) * now.epsilon
        return alpha_s * now.x0 + direction + std * fresh


def ddpm(
    steps: int = 1000, grid: Grid = "uniform", clip: bool = True, variance: Variance = "small"
) -> Sampler:
    """See `DDPM`."""
    return DDPM(steps, grid, clip, variance)


def ddim(steps: int = 50, grid: Grid = "uniform", clip: bool = True, eta: float = 0.0) -> Sampler:
    """See `DDIM`.

    Raises:
      UserError: for an eta outside [0, 1].
    """
    if not 0 <= eta <= 1:
        raise UserError(f"config.sampler.eta is {eta}; DDIM's eta lies in [0, 1].")
    return DDIM(steps, grid, clip, eta)
