"""Converts a diffusers scheduler's `scheduler_config.json` into a noise schedule, prediction type and levels, and back.

The solver is not read, since `config.sampler` names one.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxgen.diffusion import schedules
from jaxgen.diffusion.prediction_types import X0, Epsilon, PredictionType, V
from jaxgen.diffusion.schedules import Discrete, Schedule
from jaxgen.errors import UserError
from jaxgen.files.reading import as_type_of
from jaxgen.interop.diffusers_scheduler.classes import CLASSES, KNOWN, Class
from jaxgen.interop.diffusers_scheduler.levels import OFFSET, Levels, Sigmas
from jaxgen.interop.diffusers_scheduler.solvers import own_solver
from jaxgen.interop.file_types import SchedulerFile

PREDICTIONS: dict[str, PredictionType] = {"epsilon": Epsilon(), "v_prediction": V(), "sample": X0()}
CLAMP = 2.0**-24  # what some classes make of a last alpha_bar of 0, so that sigma / alpha is finite


@dataclasses.dataclass(frozen=True)
class Noise:
    """Holds the noise of a model that diffusers describes.

    Attributes:
      schedule: the noise schedule.
      prediction_type: what the network predicts.
      levels: which levels are visited.
      told: one sentence that says what a file's entries meant; "" where no file was read.
    """

    schedule: Discrete
    prediction_type: PredictionType
    levels: Levels = Levels(end="lowest level")
    told: str = ""

    def walk(self, steps: int) -> tuple[Schedule, np.ndarray]:
        """Returns the schedule to sample with and its `[steps + 1]` decreasing times; see `Levels.walk`."""
        return self.levels.walk(self.schedule, steps)


def noise_from_diffusers(config: Mapping[str, Any], where: str = "the scheduler's config") -> Noise:
    """Returns the noise that a `scheduler_config.json` describes.

    Entries that only other classes have do not count, as in diffusers, and are named in `Noise.told`.

    Args:
      config: the content of the file.
      where: names the config in messages.

    Raises:
      UserError: the scheduler's noise, or the value of an entry, has no equivalent here.
    """
    name = config.get("_class_name")
    if not isinstance(name, str) or name not in CLASSES:
        raise UserError(f"{where} is of {name!r}, whose noise has no equivalent here; known are {', '.join(CLASSES)}.")
    kind = CLASSES[name]
    own = {entry: value for entry, value in config.items() if kind.effect(entry) != "left over"}
    as_type_of(own, where, SchedulerFile)
    for entry, value in own.items():
        if entry in KNOWN and value not in KNOWN[entry]:
            values = " or ".join(map(repr, KNOWN[entry]))
            raise UserError(f"{where}: {entry}={value!r} has no equivalent here, only {values}.")
    prediction = own.get("prediction_type", "epsilon")
    if own.get("timestep_type") == "continuous" and prediction == "v_prediction":
        raise UserError(f"{where}: timestep_type='continuous' has no equivalent here for v_prediction.")
    levels = _levels(own, kind, where)
    return Noise(_schedule(own, kind, where), PREDICTIONS[prediction], levels, _told(config, name, levels, where))


def _levels(own: Mapping[str, Any], kind: Class, where: str) -> Levels:
    formulas: tuple[Sigmas, ...] = ("karras", "exponential", "beta")
    asked = [formula for formula in formulas if own.get(f"use_{formula}_sigmas")]
    if len(asked) > 1:
        raise UserError(f"{where}: use_{asked[0]}_sigmas and use_{asked[1]}_sigmas are both set; keep one of them.")
    sigmas: Sigmas = asked[0] if asked else ""
    if own.get("use_lu_lambdas") and sigmas != "karras":
        sigmas = "lu"
    at_level = kind.ends_at_level
    if "set_alpha_to_one" in kind.entries:
        at_level = not own.get("set_alpha_to_one", not at_level)
    at_level |= own.get("final_sigmas_type") == "sigma_min"
    # where a formula gives the sigmas, DEIS and UniPC repeat the last one in place of the lowest level
    repeats = at_level and sigmas and ("final_sigmas_type" not in kind.entries or "predict_x0" in kind.entries)
    clipped = own.get("lambda_min_clipped")
    return Levels(
        family=kind.family,
        spacing=own.get("timestep_spacing", kind.spacing),
        sigmas=sigmas,
        # Multistep alone asks for the schedule of betas
        rounded=kind.rounded and not ("use_lu_lambdas" in kind.entries and _cosine(own)),
        end="last sigma" if repeats else "lowest level" if at_level else "zero",
        log_linear=own.get("interpolation_type") == "log_linear",
        sigma_min=own.get("sigma_min"),
        sigma_max=own.get("sigma_max"),
        lambda_min=-math.inf if clipped is None else clipped,
    )


def _cosine(own: Mapping[str, Any]) -> bool:
    return own.get("beta_schedule") == "squaredcos_cap_v2"


def _schedule(own: Mapping[str, Any], kind: Class, where: str) -> Discrete:
    zero = bool(own.get("rescale_betas_zero_snr", False))
    betas = own.get("trained_betas")
    if betas is not None:
        if zero:
            raise UserError(f"{where}: trained_betas with rescale_betas_zero_snr has no equivalent; rescale the betas.")
        if own.get("num_train_timesteps", len(betas)) != len(betas):
            raise UserError(
                f"{where}: num_train_timesteps is {own['num_train_timesteps']}, but there are {len(betas)} "
                "trained_betas; correct one of them."
            )
        return schedules.Betas(np.asarray(betas, np.float64))
    steps = own.get("num_train_timesteps", 1000)
    found: Discrete
    if _cosine(own):
        found = schedules.Cosine(steps, zero_terminal_snr=zero)
    else:
        low, high = own.get("beta_start", kind.betas[0]), own.get("beta_end", kind.betas[1])
        make = schedules.ScaledLinear if own.get("beta_schedule") == "scaled_linear" else schedules.Linear
        found = make(steps, low, high, zero_terminal_snr=zero)
    if not (zero and kind.clamped):
        return found
    return schedules.Betas(np.append(found.betas[:-1], 1 - CLAMP / np.exp(found.log_alpha_bar[-2])))


def _told(config: Mapping[str, Any], name: str, levels: Levels, where: str) -> str:
    """Returns what was understood of a file, as one sentence."""
    effects: dict[str, list[str]] = {}
    for entry, value in config.items():
        if not entry.startswith("_"):
            effects.setdefault(CLASSES[name].effect(entry), []).append(f"{entry}={value!r}")
    formula = f", {levels.sigmas} sigmas" if levels.sigmas else ""
    told = f"{where}: the levels are those of {name} ({levels.spacing} spacing{formula})"
    solver = own_solver(name, {k: v for k, v in config.items() if CLASSES[name].effect(k) != "left over"})
    entries = f" with {', '.join(effects['solver'])}" if "solver" in effects else ""
    if solver is None:
        told += f"; config.sampler names the solver, and that of the file ({name}{entries}) has no equivalent here"
    else:
        flags = " ".join(f"--config.sampler.{key}={value}" for key, value in solver.items())
        told += f"; config.sampler names the solver, and that of the file{entries} is {flags}"
    if "left over" in effects:
        told += f"; {name} has no such entries, which are not read: {', '.join(effects['left over'])}"
    return told + "."


def noise_to_diffusers(noise: Noise) -> dict[str, Any]:
    """Returns the config of a `DDIMScheduler` with the same noise and levels.

    Raises:
      UserError: diffusers does not have the prediction type, or `DDIMScheduler` does not have the levels.
    """
    names = {prediction_type: name for name, prediction_type in PREDICTIONS.items()}
    if noise.prediction_type not in names:
        ours = type(noise.prediction_type).__name__
        raise UserError(f"diffusers' schedulers have no prediction type {ours}, only {', '.join(PREDICTIONS)}.")
    plain = Levels(spacing=noise.levels.spacing, end=noise.levels.end)
    if noise.levels != plain or noise.levels.end == "last sigma":
        raise UserError(f"a DDIMScheduler cannot visit these levels: {noise.levels}; save the scheduler's own config.")
    return {
        "_class_name": "DDIMScheduler",
        "num_train_timesteps": noise.schedule.steps,
        "trained_betas": noise.schedule.betas.tolist(),
        "prediction_type": names[noise.prediction_type],
        "timestep_spacing": noise.levels.spacing,
        "steps_offset": OFFSET,
        "set_alpha_to_one": noise.levels.end == "zero",
        "clip_sample": False,
    }
