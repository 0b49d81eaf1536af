"""Holds predictor-corrector sampling with Langevin steps (Song et al. 2021)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.diffusion.prediction import Prediction
from jaxgen.diffusion.process import added_noise_share, append_dims
from jaxgen.diffusion.samplers.base import Images, LinearSampler, Times
from jaxgen.diffusion.samplers.coefficients import Output, Row, SolverCoefficients
from jaxgen.diffusion.samplers.sde import euler_maruyama_rows
from jaxgen.diffusion.schedules.base import Schedule
from jaxgen.errors import UserError

Predictor = Literal["reverse_diffusion", "ancestral", "euler_maruyama"]


@dataclasses.dataclass(frozen=True)
class PredictorCorrector(LinearSampler):
    """Takes Langevin steps at each noise level, then a step to the next level (Song et al. 2021, Algorithms 2-3).

    As in the authors' code the corrector comes first, at t = 1 too, so that it is never asked for the score of
    data without noise. Each example has its own step size: the paper's norms, not averaged over the batch.

    Attributes:
      predictor: reverse_diffusion, the forward step's drift and noise reversed (Eq. 46); ancestral, the posterior
        (Appendix F); euler_maruyama.
      corrections: Langevin steps at each level (M in the paper).
      snr: r, the ratio of a Langevin step's length along the score to that of its noise, which sets its size.
      noise_last: whether the last prediction adds noise too; it does not in the authors' code.
    """

    steps: int = 1000
    predictor: Predictor = "reverse_diffusion"
    corrections: int = 1
    snr: float = 0.16
    noise_last: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.corrections < 0:
            raise UserError(f"config.sampler.corrections is {self.corrections}; it must be at least 0.")
        if not self.snr > 0:
            raise UserError(f"config.sampler.snr is {self.snr}; it must be above 0.")

    @property
    def evaluations_per_step(self) -> int:
        return 1 + self.corrections

    def coefficients(self, schedule: Schedule, times: Times) -> SolverCoefficients:
        sigma = schedule.sigma(times)
        shrink = schedule.alpha(times[:-1]) / schedule.alpha(times[1:])  # sqrt(1 - beta) of the step
        output, predictions = self._predictions(schedule, times, shrink)
        rows = []
        for i, row in enumerate(predictions):
            # Algorithm 5, line 5 (VP: 1 - beta; VE: 1): sqrt(2 size) z for size = 2 (1 - beta) (r |z| / |score|)**2
            std = 2 * self.snr * shrink[i] * sigma[i]
            stay = {"t": times[i], "s": times[i], "move": 1.0, "step": [0.0], "noise": std, "ends": False}
            rows += [stay] * self.corrections + [row]
        return SolverCoefficients.from_rows(output, rows)

    def _predictions(self, schedule: Schedule, times: np.ndarray, shrink: np.ndarray) -> tuple[Output, list[Row]]:
        if self.predictor == "euler_maruyama":
            return "epsilon", euler_maruyama_rows(schedule, times, self.noise_last)
        sigma = schedule.sigma(times)
        added = sigma[:-1] ** 2 * added_noise_share(schedule, times[:-1], times[1:])  # G**2, beta of the step
        rows = []
        for i, (t, s) in enumerate(zip(times[:-1], times[1:], strict=True)):
            if self.predictor == "ancestral":
                row = {"move": shrink[i] * (sigma[i + 1] / sigma[i]) ** 2}
                row |= {"step": [added[i] / sigma[i] ** 2 * schedule.alpha(s)]}
                std = sigma[i + 1] / sigma[i] * np.sqrt(added[i])
            else:
                row = {"move": 2 - shrink[i], "step": [-added[i] / sigma[i]]}
                std = np.sqrt(added[i])
            rows.append({"t": t, "s": s, **row, "noise": std if self.noise_last or i < len(times) - 2 else 0.0})
        return "x0" if self.predictor == "ancestral" else "epsilon", rows

    def scaled_noise(self, now: Prediction, row: Mapping[str, jax.Array], z: Images) -> Images:
        """Returns the noise of a predictor's row, or all of the change by a Langevin step, which stays at its time."""
        ratio = _norm(z) / jnp.maximum(_norm(now.epsilon), 1e-12)
        std = row["noise"] * append_dims(ratio, z)  # sqrt(2 size)
        langevin = std * z - 0.5 * std**2 / now.sigma * now.epsilon
        return jnp.where(row["s"] == row["t"], langevin, row["noise"] * z)


def _norm(values: jax.Array) -> jax.Array:
    """Returns `[B]` norms, one for each example."""
    return jnp.sqrt(jnp.square(values).reshape(values.shape[0], -1).sum(axis=1))
