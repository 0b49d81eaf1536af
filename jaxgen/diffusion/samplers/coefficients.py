"""The coefficients of a linear solver say what it does after each evaluation of the network, as a table of numbers."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from jaxgen.diffusion.schedules.base import Schedule
from jaxgen.errors import UserError

Output = Literal["x0", "epsilon", "velocity"]
Row = dict[str, Any]  # a row of the table, see `SolverCoefficients.from_rows`


@dataclasses.dataclass(frozen=True)
class SolverCoefficients:
    """Holds one row for each evaluation of the network, float64; docs/samplers.md works one example through.

    The scan keeps three things: `x`, the point at which the network is evaluated next; `base`, the state that the
    current step started from; and the network's outputs m_0 (the newest), m_1, ... After the evaluation at (x, t)

        base <- keep base + take x + sum_i correct_i m_i
        x    <- move base + sum_i step_i m_i + noise z,    z standard normal

    Attributes:
      output: the value of a prediction that the outputs m are: x0, epsilon or velocity.
      t: `[N]` time of the row's evaluation.
      s: `[N]` time of the new x.
      keep: `[N]` factor of the old base; 1 inside a step of several evaluations, 0 where a step begins.
      take: `[N]` factor of x in the new base; 0 inside a step, 1 where a step begins.
      correct: `[N, K]` factors of the outputs in the new base, for a corrector: it changes the state that the step
        before has reached, by the evaluation there.
      move: `[N]` factor of the base in the new x.
      step: `[N, K]` factors of the outputs in the new x.
      noise: `[N]` standard deviation of the noise in the new x.
      ends: `[N]` whether the row ends a step of the sampler's times, so that its x is a state of the trajectory.
      before: standard deviation of noise added to the first x.
    """

    output: Output
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
    def from_rows(output: Output, rows: Sequence[Mapping[str, Any]], before: float = 0.0) -> SolverCoefficients:
        """Returns coefficients from rows `{t, s, move, step, ...}`; a one-step method needs only these four.

        Where a row has no `take` it is 1, `keep` 0, `correct` empty, `noise` 0 and `ends` true. `correct` and `step`
        are lists over m_0, m_1, ..., of any length.
        """
        width = max(len(row.get(name, ())) for row in rows for name in ("correct", "step"))
        default = {"keep": 0.0, "take": 1.0, "correct": (), "step": (), "noise": 0.0, "ends": True}
        columns: dict[str, list[Any]] = {}
        for row in rows:
            for name, value in {**default, **row}.items():
                if name in ("correct", "step"):
                    value = [*value, *[0.0] * (width - len(value))]
                columns.setdefault(name, []).append(value)
        ends = np.asarray(columns.pop("ends"), bool)
        numbers = {name: np.asarray(values, np.float64) for name, values in columns.items()}
        return SolverCoefficients(output, **numbers, ends=ends, before=before)

    def repeated(self, count: int, schedule: Schedule) -> SolverCoefficients:
        """Returns the table that takes every step `count` times, and noises its result back to its start in between
        (Lugmayr et al. 2022, Algorithm 1; Bansal et al. 2023, Section 3.3).

        Raises:
          UserError: a step has more than one row, or uses more than the newest output.
        """
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
        return SolverCoefficients(self.output, **flat, before=self.before)

    def first_infinite_row(self, dtype: np.typing.DTypeLike) -> int | None:
        """Returns the first row that is not finite in this dtype, such as float32, or None where all are finite."""
        finite = np.ones(len(self.t), bool)
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, np.ndarray):
                with np.errstate(over="ignore"):
                    finite &= np.isfinite(value.astype(dtype)).reshape(len(value), -1).all(axis=1)
        return None if finite.all() else int(np.argmin(finite))
