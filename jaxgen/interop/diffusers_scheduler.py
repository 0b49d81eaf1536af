"""Converts the schedule, prediction type and spacing of a diffusers scheduler, in `scheduler_config.json`, and back.

The solver is not read, since `config.sampler` names one. A scheduler counts its levels 0..T-1, while papers and
`jaxgen.diffusion.schedules` count 1..T, so that level i there is the time (i + 1) / T here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxgen.diffusion import schedules
from jaxgen.diffusion.prediction_types import X0, Epsilon, PredictionType, V
from jaxgen.diffusion.schedules import Discrete
from jaxgen.errors import UserError

# {class: (timestep_spacing, set_alpha_to_one)}, the defaults for entries that a config lacks. Classes that have no
# set_alpha_to_one end at time 0, as if it were true.
CLASSES: dict[str, tuple[str, bool]] = {
    "DDIMScheduler": ("leading", True),
    "PNDMScheduler": ("leading", False),
    "DDPMScheduler": ("leading", True),
    "LMSDiscreteScheduler": ("linspace", True),
    "EulerDiscreteScheduler": ("linspace", True),
    "EulerAncestralDiscreteScheduler": ("linspace", True),
    "HeunDiscreteScheduler": ("linspace", True),
    "KDPM2DiscreteScheduler": ("linspace", True),
    "KDPM2AncestralDiscreteScheduler": ("linspace", True),
    "DPMSolverMultistepScheduler": ("linspace", True),
    "DPMSolverSinglestepScheduler": ("linspace", True),
    "DEISMultistepScheduler": ("linspace", True),
    "UniPCMultistepScheduler": ("linspace", True),
}
# classes whose default betas go from 0.00085 to 0.012
LIGHT = ("HeunDiscreteScheduler", "KDPM2DiscreteScheduler", "KDPM2AncestralDiscreteScheduler")
PREDICTIONS: dict[str, PredictionType] = {"epsilon": Epsilon(), "v_prediction": V(), "sample": X0()}
SPACINGS = ("leading", "trailing", "linspace")
OFFSET = 1  # steps_offset of the leading spacing; StableDiffusionPipeline sets it and ignores the config's entry


@dataclasses.dataclass(frozen=True)
class Noise:
    """Describes the noise of a model that diffusers describes.

    Attributes:
      schedule: the noise schedule.
      prediction_type: what the network predicts.
      spacing: "leading", "trailing" or "linspace"; it decides which levels are visited, see `times`.
      to_zero: whether the last step ends at time 0 and not at level 1.
    """

    schedule: Discrete
    prediction_type: PredictionType
    spacing: str = "leading"
    to_zero: bool = False

    def times(self, steps: int) -> np.ndarray:
        """Returns `[steps + 1]` decreasing times, float64, for `Sampler.__call__` (Lin et al. 2023, Table 2).

        The spacing decides which levels are visited:

            leading   every (T // steps)-th level, starting at the second
            trailing  every (T / steps)-th level, counted backwards from the last and rounded
            linspace  evenly spaced levels from the last to the first, rounded

        Raises:
          UserError: there are more steps than levels, or the spacing of so many steps does not fit the levels.
        """
        levels = self.schedule.steps
        if not 1 <= steps <= levels:
            raise UserError(f"config.sampler.steps is {steps}; the schedule has {levels} levels to visit.")
        if self.spacing == "leading":
            visited = np.arange(steps)[::-1] * (levels // steps) + OFFSET + 1
        elif self.spacing == "trailing":
            visited = np.round(np.arange(levels, 0, -levels / steps))[:steps]
        else:
            visited = np.round(np.linspace(levels, 1, steps)) if steps > 1 else np.asarray([1.0])
        if visited[0] > levels or (np.diff(visited) >= 0).any():
            raise UserError(
                f"the {self.spacing} spacing of {steps} steps does not fit {levels} levels; take fewer steps, or name "
                "another, such as config.sampler.spacing=uniform."
            )
        end = 0.0 if self.to_zero or visited[-1] <= 1 else 1.0
        return np.append(visited, end) / levels


def noise_from_diffusers(config: Mapping[str, Any], where: str = "the scheduler's config") -> Noise:
    """Returns the noise that a `scheduler_config.json` describes.

    `clip_sample` is ignored, since `StableDiffusionPipeline` never clips latents.

    Args:
      config: the content of the file.
      where: names the config in messages.

    Raises:
      UserError: the scheduler's noise, or the value of an entry, has no equivalent here.
    """
    name = config.get("_class_name")
    if name not in CLASSES:
        raise UserError(f"{where} is of {name!r}, whose noise has no equivalent here; known are {', '.join(CLASSES)}.")
    spacing, to_zero = CLASSES[name]
    found = {
        "spacing": config.get("timestep_spacing", spacing),
        "prediction_type": config.get("prediction_type", "epsilon"),
        "thresholding": config.get("thresholding", False),
        "beta_schedule": config.get("beta_schedule", "linear"),
    }
    known = {
        "spacing": SPACINGS,
        "prediction_type": tuple(PREDICTIONS),
        "thresholding": (False, None),
        "beta_schedule": ("linear", "scaled_linear", "squaredcos_cap_v2"),
    }
    for entry, value in found.items():
        if value not in known[entry]:
            name = {"spacing": "timestep_spacing"}.get(entry, entry)
            values = " or ".join(map(repr, known[entry]))
            raise UserError(f"{where}: {name}={value!r} has no equivalent here, only {values}.")
    to_zero = bool(config.get("set_alpha_to_one", to_zero))
    return Noise(_schedule(config, where), PREDICTIONS[found["prediction_type"]], found["spacing"], to_zero)


def _schedule(config: Mapping[str, Any], where: str) -> Discrete:
    steps = config.get("num_train_timesteps", 1000)
    zero = bool(config.get("rescale_betas_zero_snr", False))
    betas = config.get("trained_betas")
    if betas is not None:
        if zero:
            raise UserError(f"{where}: trained_betas with rescale_betas_zero_snr has no equivalent; rescale the betas.")
        return schedules.Betas(np.asarray(betas, np.float64))
    if config.get("beta_schedule", "linear") == "squaredcos_cap_v2":
        return schedules.Cosine(steps, zero_terminal_snr=zero)
    low, high = (0.00085, 0.012) if config["_class_name"] in LIGHT else (1e-4, 0.02)
    make = schedules.ScaledLinear if config.get("beta_schedule") == "scaled_linear" else schedules.Linear
    return make(steps, config.get("beta_start", low), config.get("beta_end", high), zero_terminal_snr=zero)


def noise_to_diffusers(noise: Noise) -> dict[str, Any]:
    """Returns the config of a `DDIMScheduler` with the same noise and levels.

    Raises:
      UserError: diffusers does not have the prediction type.
    """
    names = {prediction_type: name for name, prediction_type in PREDICTIONS.items()}
    if noise.prediction_type not in names:
        ours = type(noise.prediction_type).__name__
        raise UserError(f"diffusers' schedulers have no prediction type {ours}, only {', '.join(PREDICTIONS)}.")
    return {
        "_class_name": "DDIMScheduler",
        "num_train_timesteps": noise.schedule.steps,
        "trained_betas": noise.schedule.betas.tolist(),
        "prediction_type": names[noise.prediction_type],
        "timestep_spacing": noise.spacing,
        "steps_offset": OFFSET,
        "set_alpha_to_one": noise.to_zero,
        "clip_sample": False,
    }
