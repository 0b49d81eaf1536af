"""What a scheduler's config says about noise, against what its papers say."""

from __future__ import annotations

import numpy as np
import pytest

from jaxgen.diffusion import schedules
from jaxgen.diffusion.prediction_types import X0, Epsilon, V, Velocity
from jaxgen.errors import UserError
from jaxgen.interop.diffusers_scheduler import Noise, noise_from_diffusers, noise_to_diffusers

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


def test_stable_diffusion_1():
    noise = noise_from_diffusers(SD1)
    assert noise.prediction_type == Epsilon()
    np.testing.assert_allclose(np.sqrt(noise.schedule.betas[[0, -1]]), np.sqrt([0.00085, 0.012]), rtol=1e-12)
    assert np.ptp(np.diff(np.sqrt(noise.schedule.betas))) < 1e-12  # equal steps of the root
    networks_see = noise.schedule.conditioning(noise.times(50)[:-1])
    np.testing.assert_allclose(networks_see, np.arange(981, 0, -20))  # 981, 961, ..., 1
    assert noise.times(50)[-1] * 1000 == 1  # the last step ends at the first level


@pytest.mark.parametrize("steps", [1, 4, 7, 30, 50, 999, 1000])
@pytest.mark.parametrize("spacing", ["trailing", "linspace"])
def test_grids_that_begin_at_the_end(spacing, steps):
    times = Noise(schedules.ScaledLinear(), Epsilon(), spacing).times(steps)
    assert len(times) == steps + 1 and (np.diff(times) < 0).all()
    assert spacing == "linspace" or times[0] == 1
    levels = times[:-1] * 1000
    np.testing.assert_allclose(levels, np.round(levels))
    assert times[-1] == (0.0 if round(levels[-1]) == 1 else 1 / 1000)
    if steps > 1:
        assert times[0] == 1 and np.ptp(np.diff(levels)) <= 1 + 1e-9


def test_classes_differ_in_what_they_leave_unsaid():
    plain = {"_class_name": "DDIMScheduler"}
    assert noise_from_diffusers(plain).to_zero and noise_from_diffusers(plain).spacing == "leading"
    assert not noise_from_diffusers({"_class_name": "PNDMScheduler"}).to_zero
    euler = noise_from_diffusers({"_class_name": "EulerDiscreteScheduler"})
    assert euler.spacing == "linspace" and euler.times(10)[-1] == 0
    np.testing.assert_allclose(euler.schedule.betas[[0, -1]], [1e-4, 0.02])


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
    noise = Noise(schedules.Cosine(100), prediction, "trailing", True)
    back = noise_from_diffusers(noise_to_diffusers(noise))
    assert (back.prediction_type, back.spacing, back.to_zero) == (prediction, "trailing", True)
    np.testing.assert_array_equal(back.schedule.betas, noise.schedule.betas)
    with pytest.raises(UserError, match="no prediction type Velocity"):
        noise_to_diffusers(Noise(schedules.Cosine(100), Velocity()))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"_class_name": "FlowMatchEulerDiscreteScheduler"}, "known are DDIMScheduler"),
        ({"_class_name": None}, "known are DDIMScheduler"),
        ({"prediction_type": "flow"}, "prediction_type='flow' .* only 'epsilon' or 'v_prediction'"),
        ({"beta_schedule": "sigmoid"}, "beta_schedule='sigmoid'"),
        ({"timestep_spacing": "odd"}, "timestep_spacing='odd'"),
        ({"thresholding": True}, "thresholding=True"),
        ({"trained_betas": [0.1], "rescale_betas_zero_snr": True}, "rescale the betas"),
    ],
)
def test_what_has_no_equal_is_named(change, words):
    with pytest.raises(UserError, match=words):
        noise_from_diffusers({**SD1, **change})


def test_too_many_steps():
    noise = noise_from_diffusers(SD1)
    with pytest.raises(UserError, match="1000 levels to visit"):
        noise.times(1001)
    with pytest.raises(UserError, match="take fewer steps"):
        noise.times(1000)
