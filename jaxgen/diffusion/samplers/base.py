"""Holds the contract of a sampler, and the scan that all linear solvers share."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Key

from jaxgen.arrays import Array
from jaxgen.diffusion.noise import per_image_noise
from jaxgen.diffusion.prediction import Denoiser, Prediction
from jaxgen.diffusion.samplers.coefficients import SolverCoefficients
from jaxgen.diffusion.schedules.base import Schedule
from jaxgen.diffusion.spacing import Spacing, time_grid
from jaxgen.errors import UserError

Images = Float[Array, "B *shape"]
Trajectory = Float[Array, "frames B *shape"]
Times = Float[np.ndarray, "N"]
# x, base, the outputs of former evaluations, frames; see `SolverCoefficients`
Carry = tuple[jax.Array, jax.Array | None, tuple[jax.Array, ...], jax.Array]


@dataclasses.dataclass(frozen=True)
class Sampler(abc.ABC):
    """This is the contract: `(denoise, schedule, x, keys) -> x`.

    `denoise(x, t) -> Prediction` is evaluated at a scalar t, or at times `[B]` by `ode`.

    Attributes:
      steps: number of steps.
      spacing: how the times are spaced, see `jaxgen.diffusion.spacing.time_grid`.
      clip: whether x0 is clipped to [-1, 1] at each evaluation, as Ho et al. do; latents must not be clipped.
      self_recurrence: how often each step is taken; in between, its result is noised back to the step's start.
    """

    steps: int = 50
    spacing: Spacing = "uniform"
    clip: bool = False
    self_recurrence: int = 1

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise UserError(f"config.sampler.steps is {self.steps}; a sampler takes at least 1.")
        if self.self_recurrence < 1:
            raise UserError(f"config.sampler.self_recurrence is {self.self_recurrence}; it must be at least 1.")

    @property
    def evaluations_per_step(self) -> int:
        """Returns how often the denoiser is called in one step."""
        return 1

    @property
    def evaluations(self) -> int:
        """Returns how often the denoiser is called for one batch."""
        return self.evaluations_per_step * self.steps * self.self_recurrence

    @property
    def unfinished(self) -> str:
        """Returns why an image of this solver may be NaN though its network is sound, and what to do.

        The text is the end of a sentence. It is "" for a solver whose number of steps is fixed. For others an image
        that is not finite is an error.
        """
        return ""

    def output(self, now: Prediction) -> Prediction:
        """Returns the prediction that the solver uses: the network's, clipped where `clip` is set."""
        return now.clip() if self.clip else now

    def __call__(
        self,
        denoise: Denoiser,
        schedule: Schedule,
        x: Images,
        keys: Key[Array, "B"] | None = None,
        *,
        times: Times | None = None,
    ) -> Images:
        """Returns images `[B, ...]`; the arguments are those of `trajectory`."""
        return self.trajectory(denoise, schedule, x, keys, times=times)[0]

    @abc.abstractmethod
    def trajectory(
        self,
        denoise: Denoiser,
        schedule: Schedule,
        x: Images,
        keys: Key[Array, "B"] | None = None,
        frames: int = 0,
        times: Times | None = None,
    ) -> tuple[Images, Trajectory]:
        """Returns images `[B, ...]` and the trajectory `[frames, B, ...]`.

        Args:
          x: `[B, ...]` float32, the noisy images at the first time. At t = 1 they are `schedule.prior_std` times
            standard normals.
          keys: `[B]` random keys; image i depends on its own key alone, not on the batch. A solver that draws no noise
            needs none.
          frames: how many states of the trajectory to return: those after equal shares of the steps, the last one the
            result.
          times: any number of decreasing times in [0, 1], in place of `steps` and `spacing`; they may begin anywhere.
        """


@dataclasses.dataclass(frozen=True)
class LinearSampler(Sampler):
    """A linear solver is linear in the state and in the network's outputs: a class gives its `coefficients`."""

    @abc.abstractmethod
    def coefficients(self, schedule: Schedule, times: Times) -> SolverCoefficients:
        """Returns the solver's numbers for `times` `[steps + 1]`, float64, usually from 1 down to 0."""

    def scaled_noise(self, now: Prediction, row: Mapping[str, jax.Array], z: Images) -> Images:
        """Returns the noise that a row adds, from standard normals z."""
        return row["noise"] * z

    def trajectory(
        self,
        denoise: Denoiser,
        schedule: Schedule,
        x: Images,
        keys: Key[Array, "B"] | None = None,
        frames: int = 0,
        times: Times | None = None,
    ) -> tuple[Images, Trajectory]:
        times = time_grid(self.spacing, self.steps, schedule) if times is None else np.asarray(times, np.float64)
        steps = len(times) - 1
        if not 0 <= frames <= steps:
            raise UserError(f"A trajectory of {steps} steps has no {frames} frames; ask for fewer.")
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            table = self.coefficients(schedule, times)
            table = table.repeated(self.self_recurrence, schedule) if self.self_recurrence > 1 else table
        row = table.first_infinite_row(x.dtype)
        if row is not None:
            raise UserError(
                f"The solver {type(self).__name__} cannot step from time {table.t[row]:g} to {table.s[row]:g} under "
                "this schedule; use another solver or spacing, such as ddim."
            )
        return self.run(table, denoise, x, keys, frames)

    def run(
        self, table: SolverCoefficients, denoise: Denoiser, x: Images, keys: Key[Array, "B"] | None, frames: int = 0
    ) -> tuple[Images, Trajectory]:
        """Runs a table of coefficients; see `trajectory`. Columns that are zero in every row cost nothing.

        Raises:
          UserError: no keys are given to a solver that draws noise.
        """
        count, width = table.step.shape
        names = ("keep", "take", "correct", "move", "step", "noise")
        used = {name: np.any(getattr(table, name) != 0, axis=0) for name in names}

        def noise(index: jax.Array | int) -> jax.Array:
            if keys is None:
                raise UserError(f"The solver {type(self).__name__} draws noise; give it one random key for each image.")
            return per_image_noise(keys, index, x.shape[1:]).astype(x.dtype)

        def weighted_sum(row: Mapping[str, jax.Array], name: str, outputs: tuple[jax.Array, ...]) -> jax.Array | float:
            return sum((row[name][i] * m for i, m in enumerate(outputs) if used[name][i]), 0.0)

        def body(carry: Carry, row: dict[str, jax.Array]) -> tuple[Carry, None]:
            x, base, past, kept = carry
            now = self.output(denoise(x, row["t"]))
            outputs = (getattr(now, table.output), *past)
            start = row["take"] * x + weighted_sum(row, "correct", outputs)
            base = start if base is None else start + row["keep"] * base
            x = row["move"] * base + weighted_sum(row, "step", outputs)
            if used["noise"]:
                x = x + self.scaled_noise(now, row, noise(row["index"] + 1))
            if frames:
                kept = kept.at[row["frame"]].set(x, mode="drop")
            return (x, base if used["keep"] else None, outputs[: width - 1], kept), None

        rows = {name: jnp.asarray(getattr(table, name), x.dtype) for name in ("t", "s", *names)}
        rows |= {"index": jnp.arange(count), "frame": jnp.asarray(_frames(table.ends, frames))}
        if table.before:
            x = x + table.before * noise(count + 1)
        base = x if used["keep"] else None
        past = (jnp.zeros_like(x),) * (width - 1)
        kept = jnp.zeros((frames, *x.shape), x.dtype)
        (x, _, _, kept), _ = jax.lax.scan(body, (x, base, past, kept), rows)
        return x, kept


def _frames(ends: np.ndarray, frames: int) -> np.ndarray:
    """Returns `[N]` numbers of the frame that each row's state is written into.

    The last step that is written into a frame stays there. Rows inside a step write to the index `frames`, which does
    not exist and is dropped.
    """
    done = np.cumsum(ends)
    return np.where(ends, (done - 1) * frames // done[-1], frames)
