"""Lists the scheduler classes of Stable Diffusion 1 and 2, and what becomes of each entry of their files.

The table follows diffusers 0.42. An entry is followed, replaced as `StableDiffusionPipeline` replaces it, left to
`config.sampler` because it describes the solver, or allowed only at the values that change nothing here.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

Family = Literal["step", "sigma", "solver"]

# The entries of every class, of which Singlestep lacks the last two.
NOISE = frozenset(
    "num_train_timesteps beta_start beta_end beta_schedule trained_betas prediction_type timestep_spacing "
    "steps_offset".split()
)
CLIPPING = frozenset("clip_sample clip_sample_range".split())
THRESHOLD = frozenset("thresholding dynamic_thresholding_ratio sample_max_value".split())
SIGMAS = frozenset("use_karras_sigmas use_exponential_sigmas use_beta_sigmas".split())
# Classes with formulas for sigmas count these, too, where they are left over from another class.
ENDS = frozenset("sigma_min sigma_max".split())
FLOW = frozenset("use_flow_sigmas flow_shift use_dynamic_shifting time_shift_type".split())

# The solver's own entries. `config.sampler` names the solver, and its options have their own names.
SOLVER = frozenset(
    "skip_prk_steps variance_type solver_order algorithm_type solver_type lower_order_final euler_at_final predict_x0 "
    "disable_corrector solver_p".split()
)
# `StableDiffusionPipeline` sets these two, whatever the file says: latents are not clipped, and the leading spacing
# begins at the second level.
PIPELINE = {"clip_sample": False, "steps_offset": 1}
# These say how something is done that is refused, or that the pipeline has switched off.
IDLE = frozenset("clip_sample_range dynamic_thresholding_ratio sample_max_value flow_shift time_shift_type".split())

# {entry: the values that can be followed}
KNOWN: dict[str, tuple[Any, ...]] = {
    "timestep_spacing": ("leading", "trailing", "linspace"),
    "prediction_type": ("epsilon", "v_prediction", "sample"),
    "beta_schedule": ("linear", "scaled_linear", "squaredcos_cap_v2"),
    "final_sigmas_type": ("zero", "sigma_min"),
    "interpolation_type": ("linear", "log_linear"),
    "thresholding": (False, None),
    "use_flow_sigmas": (False, None),
    "use_dynamic_shifting": (False, None),
    "shift_terminal": (None,),
    "variance_type": ("fixed_small", "fixed_small_log", "fixed_large", "fixed_large_log", None),
    "timestep_type": ("discrete", "continuous"),
}


@dataclasses.dataclass(frozen=True)
class Class:
    """Describes one class of schedulers.

    Attributes:
      family: how its levels are spaced, see `levels.Levels`.
      entries: the entries that it reads; others in a file are left over from another class.
      spacing: its default of `timestep_spacing`.
      betas: its defaults of `beta_start` and `beta_end`.
      rounded: whether the level that the network is told is rounded where Karras' sigmas are used; without it
        "down" cuts off the fraction, as diffusers does where it keeps whole numbers.
      clamped: whether `rescale_betas_zero_snr` leaves the last level a signal of 2**-24.
      ends_at_level: whether the last step ends at the lowest level where the file does not say.
    """

    family: Family
    entries: frozenset[str]
    spacing: str = "linspace"
    betas: tuple[float, float] = (1e-4, 0.02)
    rounded: bool = False
    clamped: bool = False
    ends_at_level: bool = False

    def effect(self, entry: str) -> str:
        """Returns "followed", "pipeline", "solver", "idle" or "left over": what becomes of an entry of a file."""
        if entry not in self.entries and not (entry in ENDS and self.counts_ends):
            return "left over"
        if entry in SOLVER:
            return "solver"
        return "pipeline" if entry in PIPELINE else "idle" if entry in IDLE else "followed"

    @property
    def counts_ends(self) -> bool:
        """Returns whether `sigma_min` and `sigma_max` are counted, as where sigmas are spaced evenly by a formula."""
        return bool(SIGMAS & self.entries)


def _sigma(*more: str, light: bool = False, rounded: bool = False, clamped: bool = False, base: Any = SIGMAS) -> Class:
    betas = (0.00085, 0.012) if light else (1e-4, 0.02)
    return Class("sigma", NOISE | base | set(more), betas=betas, rounded=rounded, clamped=clamped)


def _solver(*more: str, clamped: bool = False, ends_at_level: bool = False) -> Class:
    own = {"solver_order", "solver_type", "lower_order_final", *more}
    entries = NOISE | SIGMAS | THRESHOLD | FLOW | own
    return Class("solver", entries, rounded=True, clamped=clamped, ends_at_level=ends_at_level)


ZERO = "rescale_betas_zero_snr"
CLASSES: dict[str, Class] = {
    "DDIMScheduler": Class("step", NOISE | CLIPPING | THRESHOLD | {"set_alpha_to_one", ZERO}, "leading"),
    "PNDMScheduler": Class("step", NOISE | {"set_alpha_to_one", "skip_prk_steps"}, "leading", ends_at_level=True),
    "DDPMScheduler": Class("step", NOISE | CLIPPING | THRESHOLD | {"variance_type", ZERO}, "leading"),
    "LMSDiscreteScheduler": _sigma(),
    "EulerDiscreteScheduler": _sigma(
        "interpolation_type", "sigma_min", "sigma_max", "timestep_type", "final_sigmas_type", ZERO, clamped=True
    ),
    "EulerAncestralDiscreteScheduler": _sigma(ZERO, clamped=True, base=frozenset()),
    "HeunDiscreteScheduler": _sigma(*CLIPPING, light=True),
    "KDPM2DiscreteScheduler": _sigma(light=True, rounded=True),
    "KDPM2AncestralDiscreteScheduler": _sigma(light=True, rounded=True),
    "DPMSolverMultistepScheduler": _solver(
        "algorithm_type", "euler_at_final", "use_lu_lambdas", "final_sigmas_type", "lambda_min_clipped",
        "variance_type", ZERO, clamped=True,
    ),
    "DPMSolverSinglestepScheduler": dataclasses.replace(
        _solver("algorithm_type", "final_sigmas_type", "lambda_min_clipped", "variance_type"),
        entries=_solver("algorithm_type", "final_sigmas_type", "lambda_min_clipped", "variance_type").entries
        - {"timestep_spacing", "steps_offset"},
    ),
    "DEISMultistepScheduler": _solver("algorithm_type", ends_at_level=True),
    "UniPCMultistepScheduler": _solver(
        "predict_x0", "disable_corrector", "solver_p", "final_sigmas_type", "sigma_min", "sigma_max", "shift_terminal",
        ZERO, clamped=True,
    ),
}  # fmt: skip
