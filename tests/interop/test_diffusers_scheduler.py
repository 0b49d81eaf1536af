"""What a scheduler's config says about noise, against what its papers say."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from jaxgen.build import build
from jaxgen.diffusion import schedules
from jaxgen.diffusion.prediction_types import X0, Epsilon, V, Velocity
from jaxgen.errors import UserError
from jaxgen.interop.diffusers_scheduler import Levels, Noise, noise_from_diffusers, noise_to_diffusers
from jaxgen.interop.diffusers_scheduler.solvers import own_solver

SD1 = {
    "_class_name": "PNDMScheduler",
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "num_train_timesteps": 1000,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "trained_betas": None,
    "clip_sample": False,
}
LIGHT = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
KARRAS = {**LIGHT, "use_karras_sigmas": True}
DDIM = {"_class_name": "DDIMScheduler"}
EULER = {"_class_name": "EulerDiscreteScheduler"}


def test_stable_diffusion_1():
    noise = noise_from_diffusers(SD1)
    assert noise.prediction_type == Epsilon()
    np.testing.assert_allclose(np.sqrt(noise.schedule.betas[[0, -1]]), np.sqrt([0.00085, 0.012]), rtol=1e-12)
    assert np.ptp(np.diff(np.sqrt(noise.schedule.betas))) < 1e-12  # equal steps of the root
    schedule, times = noise.walk(50)
    assert schedule is noise.schedule
    np.testing.assert_allclose(schedule.conditioning(times[:-1]), np.arange(981, 0, -20))  # 981, 961, ..., 1
    assert times[-1] * 1000 == 1  # the last step ends at the first level


@pytest.mark.parametrize("steps", [1, 4, 7, 30, 50, 999, 1000])
@pytest.mark.parametrize("spacing", ["trailing", "linspace"])
def test_grids_that_begin_at_the_end(spacing, steps):
    _, times = Noise(schedules.ScaledLinear(), Epsilon(), Levels(spacing=spacing, end="lowest level")).walk(steps)
    assert len(times) == steps + 1 and (np.diff(times[:-1]) < 0).all()
    assert spacing == "linspace" or times[0] == 1
    levels = times[:-1] * 1000
    np.testing.assert_allclose(levels, np.round(levels))
    assert times[-1] == 1 / 1000
    if steps > 1:
        assert times[0] == 1 and np.ptp(np.diff(levels)) <= 1 + 1e-9


def test_classes_differ_in_what_they_leave_unsaid():
    def times(name, **entries):
        return noise_from_diffusers({"_class_name": name, **entries}).walk(10)[1] * 1000

    assert times("DDIMScheduler")[-1] == 0 and times("DDIMScheduler")[0] == 902  # leading
    assert times("PNDMScheduler")[-1] == 1 and times("PNDMScheduler")[0] == 902
    assert times("EulerDiscreteScheduler")[-1] == 0 and times("EulerDiscreteScheduler")[0] == 1000
    assert times("EulerDiscreteScheduler", set_alpha_to_one=False)[-1] == 0  # has no such entry
    # eleven levels from 999 to 0 without the lowest
    np.testing.assert_allclose(times("UniPCMultistepScheduler"), [1000, 900, 800, 700, 600, 501, 401, 301, 201, 101, 0])
    euler = noise_from_diffusers({"_class_name": "EulerDiscreteScheduler"})
    np.testing.assert_allclose(euler.schedule.betas[[0, -1]], [1e-4, 0.02])


def test_karras_sigmas_and_the_rounded_level_that_the_network_is_told():
    config = {"_class_name": "DPMSolverMultistepScheduler", **LIGHT, "use_karras_sigmas": True}
    schedule, times = noise_from_diffusers(config).walk(3)
    table = np.sqrt(1 / np.cumprod(1 - np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2) - 1)
    middle = ((table[0] ** (1 / 7) + table[-1] ** (1 / 7)) / 2) ** 7  # half-way in the seventh root
    found = schedule.sigma(times[:-1]) / schedule.alpha(times[:-1])
    np.testing.assert_allclose(found, [table[-1], middle, table[0]], rtol=1e-3)
    told = schedule.conditioning(times[:-1])
    np.testing.assert_allclose(told, np.round(told), atol=1e-9)
    assert table[int(told[1]) - 1] < middle < table[int(told[1]) + 1]
    np.testing.assert_allclose(jax.jit(schedule.conditioning)(np.float32(times[1])), told[1], atol=1e-3)


@pytest.mark.parametrize("solver", ["ddim", "dpmpp_2m", "dpmpp_3m", "unipc", "heun", "euler_ancestral", "dpmpp_2m_sde"])
def test_a_last_step_of_no_length_changes_nothing(solver):
    """DEIS repeats its last sigma, so that the last of 20 steps stays where it is."""
    schedule, times = noise_from_diffusers({"_class_name": "DEISMultistepScheduler", **KARRAS}).walk(20)
    assert times[-1] == times[-2] and (np.diff(times[:-1]) < 0).all()
    sampler = build({"name": solver, "steps": 20, "clip": False}, "sampler", "config.sampler")
    table = sampler.coefficients(schedule, times)
    assert table.first_infinite_row(np.float32) is None
    if solver != "heun":  # which has two rows for a step
        assert table.move[-1] == 1 and not table.step[-1].any() and table.noise[-1] == 0


def test_what_was_understood_is_told():
    config = {"_class_name": "DEISMultistepScheduler", "solver_order": 3, "set_alpha_to_one": False, "_name": "x"}
    told = noise_from_diffusers(config, "a.json").told
    assert told == (
        "a.json: the levels are those of DEISMultistepScheduler (linspace spacing); config.sampler names the solver, "
        "and that of the file (DEISMultistepScheduler with solver_order=3) has no equivalent here; "
        "DEISMultistepScheduler has no such entries, which are not read: set_alpha_to_one=False."
    )
    told = noise_from_diffusers({"_class_name": "UniPCMultistepScheduler", "solver_order": 3}, "a.json").told
    assert "that of the file with solver_order=3 is --config.sampler.name=unipc --config.sampler.order=3." in told


MULTISTEP, UNIPC = "DPMSolverMultistepScheduler", "UniPCMultistepScheduler"


@pytest.mark.parametrize(
    ("name", "entries", "wanted"),
    [
        (MULTISTEP, {}, {"name": "dpmpp_2m"}),
        (MULTISTEP, {"solver_type": "heun"}, None),
        (MULTISTEP, {"algorithm_type": "dpmsolver"}, None),
        (MULTISTEP, {"solver_order": 3, "solver_type": "heun"}, {"name": "dpmpp_3m", "half_curvature": True}),
        (MULTISTEP, {"lower_order_final": False}, {"name": "dpmpp_2m", "lower_order_final": False}),
        (MULTISTEP, {"euler_at_final": True}, {"name": "dpmpp_2m"}),
        (MULTISTEP, {"euler_at_final": True, "final_sigmas_type": "sigma_min"}, None),
        (
            MULTISTEP,
            {"algorithm_type": "sde-dpmsolver++", "solver_type": "heun"},
            {"name": "dpmpp_2m_sde", "correction": "heun"},
        ),
        (UNIPC, {"solver_type": "bh1", "lower_order_final": False}, {"variant": "bh1", "lower_order_final": False}),
        (UNIPC, {"disable_corrector": [0]}, None),
        (UNIPC, {"predict_x0": False}, None),
        ("DDPMScheduler", {"variance_type": "fixed_large"}, {"name": "ddpm", "variance": "large"}),
        ("PNDMScheduler", {}, None),
        ("EulerDiscreteScheduler", {}, {"name": "euler"}),
    ],
)
def test_the_solver_of_a_file_is_named_where_there_is_one(name, entries, wanted):
    found = own_solver(name, entries)
    if wanted is None:
        assert found is None
    else:
        assert found == {"name": "unipc", **wanted} if name == UNIPC else found == wanted
        build(found, "sampler", "config.sampler")  # is a sampler, which has these options


def test_zero_terminal_snr_and_other_forms():
    told = {"_class_name": "DDIMScheduler", "rescale_betas_zero_snr": True, "prediction_type": "v_prediction"}
    noise = noise_from_diffusers(told)
    assert noise.prediction_type == V() and noise.schedule.alpha(1.0) < 1e-10
    cosine = noise_from_diffusers({"_class_name": "DDPMScheduler", "beta_schedule": "squaredcos_cap_v2"})
    np.testing.assert_array_equal(cosine.schedule.betas, schedules.Cosine().betas)
    trained = noise_from_diffusers(
        {"_class_name": "DDIMScheduler", "trained_betas": [0.1, 0.2], "prediction_type": "sample"}
    )
    assert trained.prediction_type == X0() and trained.schedule.steps == 2


@pytest.mark.parametrize("prediction", [Epsilon(), V(), X0()])
def test_noise_travels_both_ways(prediction):
    noise = Noise(schedules.Cosine(100), prediction, Levels(spacing="trailing"))
    back = noise_from_diffusers(noise_to_diffusers(noise))
    assert (back.prediction_type, back.levels) == (prediction, noise.levels)
    np.testing.assert_array_equal(back.schedule.betas, noise.schedule.betas)
    with pytest.raises(UserError, match="no prediction type Velocity"):
        noise_to_diffusers(Noise(schedules.Cosine(100), Velocity()))
    with pytest.raises(UserError, match="cannot visit these levels"):
        noise_to_diffusers(Noise(schedules.Cosine(100), Epsilon(), Levels("solver", "linspace")))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({**EULER, "timestep_type": "continuous", "prediction_type": "v_prediction"}, "timestep_type='continuous'"),
        ({**EULER, "use_karras_sigmas": True, "use_beta_sigmas": True}, "use_karras_sigmas and use_beta_sigmas"),
        ({**EULER, "final_sigmas_type": "other"}, "final_sigmas_type='other'"),
        ({"_class_name": "UniPCMultistepScheduler", "use_flow_sigmas": True}, "use_flow_sigmas=True"),
        ({"_class_name": "UniPCMultistepScheduler", "shift_terminal": 0.1}, "shift_terminal=0.1"),
        ({"_class_name": "DDPMScheduler", "variance_type": "learned_range"}, "variance_type='learned_range'"),
        ({**DDIM, "thresholding": True}, "thresholding=True"),
        ({"_class_name": "FlowMatchEulerDiscreteScheduler"}, "known are DDIMScheduler"),
        ({"_class_name": None}, "known are DDIMScheduler"),
        ({"prediction_type": "flow"}, "prediction_type='flow' .* only 'epsilon' or 'v_prediction'"),
        ({"beta_schedule": "sigmoid"}, "beta_schedule='sigmoid'"),
        ({"trained_betas": [0.1, 0.2]}, "num_train_timesteps is 1000, but there are 2 trained_betas"),
        ({"timestep_spacing": "odd"}, "timestep_spacing='odd'"),
        ({**DDIM, "trained_betas": [0.1] * 1000, "rescale_betas_zero_snr": True}, "rescale the betas"),
    ],
)
def test_what_has_no_equal_is_named(change, words):
    with pytest.raises(UserError, match=words):
        noise_from_diffusers({**SD1, **change})


def test_too_many_steps():
    noise = noise_from_diffusers(SD1)
    with pytest.raises(UserError, match="1000 levels to visit"):
        noise.walk(1001)
    with pytest.raises(UserError, match="take fewer steps"):
        noise.walk(1000)


def test_sigmas_beyond_the_noise_of_the_betas_are_refused():
    noise = noise_from_diffusers({**SD1, **EULER, "use_karras_sigmas": True, "sigma_max": 20.0})
    with pytest.raises(UserError, match="asks for a sigma / alpha of 20, where the noise of its betas reaches 14.6"):
        noise.walk(5)
