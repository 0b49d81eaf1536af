"""Samplers: from noise to images in one `lax.scan`, one evaluation of the network in its body.

A sampler is `(denoise, schedule, x, keys) -> x`, pure and jit-able: `denoise(x, t) -> Prediction` with t a scalar (of
`ode` alone `[B]`), `x` `[B, ...]` at the grid's first time, `keys` one key per image, so that image i depends on its
own key alone, whatever the batch. `evaluations` says how often `denoise` runs before it runs.

All but a few solvers are linear in the state and in the network's outputs, so a solver is a table: its `plan`
gives, in float64, the numbers by which it joins them after each evaluation. Each module here is one solver,
named as in `config.sampler.name`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.diffusion.noise import per_image_noise
from jaxgen.diffusion.prediction import Denoiser, Prediction
from jaxgen.diffusion.schedules import Schedule
from jaxgen.diffusion.spacing import Spacing, time_grid
from jaxgen.errors import UserError

Form = Literal["x0", "epsilon", "velocity"]


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a solver does after each evaluation of the network: one row an evaluation, float64.

    It keeps the state that a step started from, `base`, the point where the network looks, `x`, and the
    network's outputs m_0 (the newest), m_1, ... After the evaluation at (x, t)

        base <- keep base + take x + sum_i correct_i m_i
        x    <- move base + sum_i step_i m_i + noise z,    z standard normal

    Attributes:
      form: of the outputs m. t: `[N]` times of the evaluations. s: `[N]` time of the new x.
      keep, take, move, noise: `[N]`. correct, step: `[N, K]`.
      ends: `[N]` whether the row ends a step of the grid.
      before: standard deviation of noise added to the first x.
    """

    form: Form
    t: np.ndarray
    s: np.ndarray
    keep: np.ndarray
    take: np.ndarray
    correct: np.ndarray
    move: np.ndarray
    step: np.ndarray
    noise: np.ndarray
    ends: np.ndarray
    before: float = 0.0

    @staticmethod
    def of(form: Form, rows: Sequence[Mapping[str, Any]], before: float = 0.0) -> Plan:
        """A plan from rows `{t, s, move, step, ...}`; those of one-step methods need no more.

        `take` is 1 and `keep` 0 where a row is silent, `correct`, `step` are lists over m_0, m_1, ... that end in
        zeros, `noise` is 0 and `ends` true.
        """
        wide = max(len(row.get(name, ())) for row in rows for name in ("correct", "step"))
        silent = {"keep": 0.0, "take": 1.0, "correct": (), "step": (), "noise": 0.0, "ends": True}
        columns: dict[str, list[Any]] = {}
        for row in rows:
            for name, value in {**silent, **row}.items():
                if name in ("correct", "step"):
                    value = [*value, *[0.0] * (wide - len(value))]
                columns.setdefault(name, []).append(value)
        ends = np.asarray(columns.pop("ends"), bool)
        return Plan(form, **{k: np.asarray(v, np.float64) for k, v in columns.items()}, ends=ends, before=before)

    def repeated(self, count: int, schedule: Schedule) -> Plan:
        """Every step `count` times, its result noised back to where it began in between (Lugmayr et al. 2022,
        Algorithm 1; the self-recurrence of Bansal et al. 2023): for one-row, one-step methods."""
        if not (self.ends.all() and not self.keep.any() and not self.correct.any() and not self.step[:, 1:].any()):
            raise UserError("config.sampler.self_recurrence is for one-step solvers, such as ddim and ddpm.")
        back = schedule.alpha(self.t) / schedule.alpha(self.s)
        added = np.sqrt(np.maximum(schedule.sigma(self.t) ** 2 - (back * schedule.sigma(self.s)) ** 2, 0))
        again = {
            **{name: getattr(self, name) for name in ("t", "keep", "take", "correct")},
            "s": self.t,
            "move": back * self.move,
            "step": back[:, None] * self.step,
            "noise": np.hypot(back * self.noise, added),
            "ends": np.zeros_like(self.ends),
        }
        names = again.keys()
        stacked = {n: np.stack([again[n]] * (count - 1) + [getattr(self, n)], axis=1) for n in names}
        flat = {n: v.reshape(-1, *v.shape[2:]) for n, v in stacked.items()}
        return Plan(self.form, **flat, before=self.before)


@dataclasses.dataclass(frozen=True)
class Sampler:
    """The contract of a sampler, and the scan that all share. A linear solver fills in `plan`.

    Attributes:
      steps: number of steps of the grid.
      spacing: how the times are spaced, see `jaxgen.diffusion.spacing.time_grid`.
      clip: whether x0 is clipped to [-1, 1] at each evaluation, as Ho et al. do; not for latents.
      self_recurrence: how often each step is taken, noised back in between; 1 for most uses.
    """

    steps: int = 50
    spacing: Spacing = "uniform"
    clip: bool = False
    self_recurrence: int = 1

    # evaluations of the network in a step
    evaluations_per_step: ClassVar[int] = 1

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise UserError(f"config.sampler.steps is {self.steps}; a sampler takes at least 1.")
        if self.self_recurrence < 1:
            raise UserError(f"config.sampler.self_recurrence is {self.self_recurrence}; it must be at least 1.")

    @property
    def evaluations(self) -> int:
        """How often the denoiser is called for one batch."""
        return self.evaluations_per_step * self.steps * self.self_recurrence

    def plan(self, schedule: Schedule, times: np.ndarray) -> Plan:
        """The solver as numbers, for a grid `times` `[steps + 1]`, float64, usually from 1 down to 0."""
        raise NotImplementedError

    def output(self, now: Prediction) -> Prediction:
        """What the solver takes the network to have said; clips where `clip` is set."""
        return now.clip() if self.clip else now

    def scaled_noise(self, now: Prediction, row: Mapping[str, jax.Array], z: jax.Array) -> jax.Array:
        """The noise that a row adds, from standard normals."""
        return row["noise"] * z

    def __call__(
        self,
        denoise: Denoiser,
        schedule: Schedule,
        x: jax.Array,
        keys: jax.Array,
        frames: int = 0,
        times: np.ndarray | None = None,
    ) -> jax.Array | tuple[jax.Array, jax.Array]:
        """Runs the grid.

        Args:
          x: `[B, ...]` float32, the noisy images at the grid's first time: `schedule.prior_std` times standard
            normals where that is 1.
          keys: `[B]` random keys.
          frames: also return the trajectory, thinned to so many states, `[frames, B, ...]`: the states after
            equal shares of the steps, the last one the result.
          times: a grid of one's own, any number of times in [0, 1], in place of `steps` and `spacing`; it may begin
            anywhere.
        """
        times = time_grid(self.spacing, self.steps, schedule) if times is None else np.asarray(times, np.float64)
        steps = len(times) - 1
        if not 0 <= frames <= steps:
            raise UserError(f"A trajectory of {steps} steps has no {frames} frames; ask for fewer.")
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            plan = self.plan(schedule, times)
            plan = plan.repeated(self.self_recurrence, schedule) if self.self_recurrence > 1 else plan
        _check_finite(plan, self, x.dtype)
        return self.run(plan, denoise, x, keys, frames)

    def run(self, plan: Plan, denoise: Denoiser, x: jax.Array, keys: jax.Array, frames: int = 0):
        """Runs a plan; see `__call__`."""
        count, wide = plan.step.shape
        names = ("keep", "take", "correct", "move", "step", "noise")
        used = {name: np.any(getattr(plan, name) != 0, axis=0) for name in names}
        # each step writes its state into its frame; the last writer of a frame stays, and rows inside a step
        # write beside the array
        done = np.cumsum(plan.ends)
        slot = np.where(plan.ends, (done - 1) * frames // done[-1], frames)

        def joined(row: Mapping[str, jax.Array], name: str, outputs: tuple[jax.Array, ...]) -> jax.Array | float:
            return sum((row[name][i] * m for i, m in enumerate(outputs) if used[name][i]), 0.0)

        def body(carry: tuple[jax.Array, ...], row: dict[str, jax.Array]):
            x, base, past, kept = carry
            now = self.output(denoise(x, row["t"]))
            outputs = (getattr(now, plan.form), *past)
            start = row["take"] * x + joined(row, "correct", outputs)
            base = start + row["keep"] * base if used["keep"] else start
            x = row["move"] * base + joined(row, "step", outputs)
            if used["noise"]:
                z = per_image_noise(keys, row["index"] + 1, x.shape[1:]).astype(x.dtype)
                x = x + self.scaled_noise(now, row, z)
            if frames:
                kept = kept.at[row["slot"]].set(x, mode="drop")
            return (x, base if used["keep"] else None, outputs[: wide - 1], kept), None

        rows = {name: jnp.asarray(getattr(plan, name), x.dtype) for name in ("t", "s", *names)}
        rows |= {"index": jnp.arange(count), "slot": jnp.asarray(slot)}
        if plan.before:
            x = x + plan.before * per_image_noise(keys, count + 1, x.shape[1:]).astype(x.dtype)
        start = x if used["keep"] else None
        past = (jnp.zeros_like(x),) * (wide - 1)
        kept = jnp.zeros((frames, *x.shape), x.dtype)
        (x, _, _, kept), _ = jax.lax.scan(body, (x, start, past, kept), rows)
        return (x, kept) if frames else x


def _check_finite(plan: Plan, sampler: Sampler, dtype: Any) -> None:
    for field in dataclasses.fields(plan):
        value = getattr(plan, field.name)
        if not isinstance(value, np.ndarray):
            continue
        with np.errstate(over="ignore"):
            value = value.astype(dtype)
        if not np.isfinite(value).all():
            row = int(np.argmin(np.isfinite(value).reshape(len(value), -1).all(axis=1)))
            raise UserError(
                f"The solver {type(sampler).__name__} cannot step from time {plan.t[row]:g} to {plan.s[row]:g} under "
                "this schedule; use another solver or spacing, such as ddim."
            )
