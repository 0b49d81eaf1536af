"""The levels of every scheduler class of Stable Diffusion folders against what diffusers' `set_timesteps` gives."""

from __future__ import annotations

import functools
import itertools

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="parity needs torch and diffusers: install the extra 'parity'")
import diffusers  # noqa: E402

from jaxgen.interop.diffusers_scheduler import noise_from_diffusers  # noqa: E402
from jaxgen.interop.diffusers_scheduler.classes import CLASSES  # noqa: E402

pytestmark = pytest.mark.parity

FORMULAS = ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas", "use_lu_lambdas")
SPACINGS = (None, "leading", "trailing", "linspace")
LIGHT = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}


@functools.cache  # some classes take seconds to be made
def scheduler_of(config: tuple):
    return getattr(diffusers, dict(config)["_class_name"]).from_config(dict(config))


def theirs(config: dict, steps: int):
    """The levels that the network is told, sigma / alpha of every visited level and of the end, and the standard
    deviation of the start where the signal and the noise have a variance of 1."""
    name = config["_class_name"]
    scheduler = scheduler_of(tuple(config.items()))
    scheduler.set_timesteps(steps)
    told = scheduler.timesteps.numpy().astype(float)
    if name == "PNDMScheduler":  # visits some levels twice
        told = scheduler._timesteps[::-1].astype(float)
    if CLASSES[name].family == "step":
        final = float(getattr(scheduler, "final_alpha_cumprod", 1.0))
        alpha_bar = np.append(scheduler.alphas_cumprod.numpy().astype(float)[told.astype(int)], final)
        return told, np.sqrt((1 - alpha_bar) / alpha_bar), 1.0
    sigmas = scheduler.sigmas.numpy().astype(float)
    if name.startswith(("Heun", "KDPM2")):  # evaluate twice in a step
        told, sigmas = told[[0, *range(2, len(told), 2)]], np.append(sigmas[[0, *range(1, len(sigmas) - 1, 2)]], 0.0)
        sigmas = np.append(sigmas[: len(told)], 0.0)
    start = float(scheduler.init_noise_sigma)
    sigmas = sigmas[: len(told) + 1]
    return told, sigmas, start / np.sqrt(1 + sigmas[0] ** 2) if CLASSES[name].family == "sigma" else start


def check(config: dict, steps: int) -> None:
    told, sigmas, start = theirs(config, steps)
    schedule, times = noise_from_diffusers(config).walk(steps)
    message = f"{config}, {steps} steps"
    levels = schedule.conditioning(times[:-1]) * schedule.steps / 1000
    np.testing.assert_allclose(levels, told, atol=2e-3, err_msg=message)
    with np.errstate(divide="ignore"):
        found = schedule.sigma(times) / schedule.alpha(times)
    # alpha_bar in float32 has an error of 6e-8, which is 1e-4 of the noise of the lowest level
    np.testing.assert_allclose(found, sigmas, rtol=1e-3, err_msg=message)
    assert abs(schedule.prior_std - start) < 1e-5, message


@pytest.mark.parametrize("name", CLASSES)
def test_spacings_formulas_and_ends(name):
    formulas = [None, *(entry for entry in FORMULAS if entry in CLASSES[name].entries)]
    for spacing, formula, one in itertools.product(SPACINGS, formulas, (None, False)):
        config = {"_class_name": name, **LIGHT}
        config |= {"timestep_spacing": spacing} if spacing else {}
        config |= {formula: True} if formula else {}
        config |= {"set_alpha_to_one": one} if one is not None else {}  # left over in most classes
        for steps in (6, 7) if formula else (4, 7, 20, 50):
            check(config, steps)


ENTRIES = [
    ("EulerDiscreteScheduler", {"interpolation_type": "log_linear"}),
    ("EulerDiscreteScheduler", {"interpolation_type": "log_linear", "use_karras_sigmas": True}),
    ("EulerDiscreteScheduler", {"use_karras_sigmas": True, "sigma_min": 0.1, "sigma_max": 10.0}),
    ("EulerDiscreteScheduler", {"final_sigmas_type": "sigma_min"}),
    ("EulerDiscreteScheduler", {"final_sigmas_type": "sigma_min", "use_karras_sigmas": True}),
    ("EulerDiscreteScheduler", {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}),
    ("EulerDiscreteScheduler", {"timestep_type": "continuous"}),
    ("EulerAncestralDiscreteScheduler", {"rescale_betas_zero_snr": True}),
    ("EulerAncestralDiscreteScheduler", {"use_karras_sigmas": True}),  # left over
    ("HeunDiscreteScheduler", {"use_exponential_sigmas": True, "sigma_min": 0.05}),  # left over, and counted
    ("DPMSolverMultistepScheduler", {"final_sigmas_type": "sigma_min"}),
    ("DPMSolverMultistepScheduler", {"final_sigmas_type": "sigma_min", "use_karras_sigmas": True}),
    ("DPMSolverMultistepScheduler", {"use_karras_sigmas": True, "use_lu_lambdas": True}),
    ("DPMSolverMultistepScheduler", {"use_karras_sigmas": True, "beta_schedule": "squaredcos_cap_v2"}),
    ("DPMSolverMultistepScheduler", {"use_exponential_sigmas": True, "sigma_max": 9.0}),
    ("DPMSolverMultistepScheduler", {"beta_schedule": "squaredcos_cap_v2", "lambda_min_clipped": -5.1}),
    ("DPMSolverMultistepScheduler", {"lambda_min_clipped": -2.0, "timestep_spacing": "trailing"}),
    ("DPMSolverMultistepScheduler", {"lambda_min_clipped": -2.0, "timestep_spacing": "leading"}),
    ("DPMSolverMultistepScheduler", {"rescale_betas_zero_snr": True}),
    ("DPMSolverSinglestepScheduler", {"lambda_min_clipped": -2.0, "final_sigmas_type": "sigma_min"}),
    ("DPMSolverSinglestepScheduler", {"use_lu_lambdas": True, "timestep_spacing": "leading"}),  # left over
    ("UniPCMultistepScheduler", {"final_sigmas_type": "sigma_min"}),
    ("UniPCMultistepScheduler", {"final_sigmas_type": "sigma_min", "use_karras_sigmas": True}),
    ("UniPCMultistepScheduler", {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}),
    ("DEISMultistepScheduler", {"final_sigmas_type": "zero"}),  # left over
    ("DDIMScheduler", {"rescale_betas_zero_snr": True, "num_train_timesteps": 400}),
    ("PNDMScheduler", {"num_train_timesteps": 8, "trained_betas": (0.1, 0.2, 0.3, 0.4, 0.4, 0.5, 0.5, 0.9)}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "more"), ENTRIES)
def test_other_entries(name, more):
    check({"_class_name": name, **LIGHT, **more}, 6 if "PNDM" not in name else 4)


@pytest.mark.parametrize("name", CLASSES)
def test_defaults_are_those_of_each_class(name):
    # steps_offset is 1 in the pipeline, where the classes' own default is 0
    check({"_class_name": name, "steps_offset": 1}, 7)


def test_every_class_and_entry_that_diffusers_has_is_known():
    names = {kind.name for kind in diffusers.schedulers.KarrasDiffusionSchedulers}
    assert names - set(CLASSES) == {"DPMSolverSDEScheduler", "EDMEulerScheduler"}  # the first needs torchsde
    for name, kind in CLASSES.items():
        entries = set(getattr(diffusers, name)().config) - {"_use_default_values"}
        assert {entry for entry in entries if not entry.startswith("_")} == kind.entries, name
