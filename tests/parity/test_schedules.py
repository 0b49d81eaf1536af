"""Schedules, EDM preconditioning and time grids against diffusers."""

import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

from jaxgen.diffusion import schedules  # noqa: E402
from jaxgen.diffusion.prediction import Prediction, denoiser  # noqa: E402
from jaxgen.diffusion.prediction_types import EDM, X0  # noqa: E402
from jaxgen.diffusion.spacing import time_grid  # noqa: E402

pytestmark = pytest.mark.parity

# their name, their start and end of beta, ours
DISCRETE = {
    "linear": ("linear", 1e-4, 0.02, schedules.Linear),
    "scaled_linear": ("scaled_linear", 0.00085, 0.012, schedules.ScaledLinear),
    "cosine": ("squaredcos_cap_v2", 1e-4, 0.02, schedules.Cosine),
}


def peer(name, kind=diffusers.DDPMScheduler, **options):
    theirs, start, end, _ = DISCRETE[name]
    return kind(beta_schedule=theirs, beta_start=start, beta_end=end, **options)


@pytest.mark.parametrize("steps", [1000, 250])
@pytest.mark.parametrize("name", DISCRETE)
def test_betas_and_their_product(name, steps):
    theirs, ours = peer(name, num_train_timesteps=steps), DISCRETE[name][-1](steps)
    np.testing.assert_allclose(ours.betas, theirs.betas, rtol=1e-5)  # theirs are float32
    levels = np.arange(1, steps + 1) / steps
    np.testing.assert_allclose(ours.alpha(levels) ** 2, theirs.alphas_cumprod, rtol=2e-4, atol=1e-9)
    np.testing.assert_allclose(ours.conditioning(levels), np.arange(steps) * 1000 / steps, atol=1e-9)


@pytest.mark.parametrize("name", DISCRETE)
def test_zero_terminal_snr(name):
    theirs = peer(name, rescale_betas_zero_snr=True)
    ours = DISCRETE[name][-1](zero_terminal_snr=True)
    np.testing.assert_allclose(
        ours.alpha(np.arange(1, 1001) / 1000), np.sqrt(theirs.alphas_cumprod), rtol=1e-3, atol=2e-6
    )
    assert ours.alpha(jnp.float32(1)) == 0 and theirs.alphas_cumprod[-1] < 1e-12


@pytest.mark.parametrize("sigma_data", [0.5, 1.0])
def test_edm_preconditioning(sigma_data):
    theirs = diffusers.EDMEulerScheduler(sigma_data=sigma_data)
    schedule = schedules.EDM(sigma_data=sigma_data)
    rng = np.random.default_rng(0)
    x, value = (rng.standard_normal((2, 5)).astype(np.float32) for _ in range(2))
    for sigma in (0.002, 0.05, 0.7, 9.0, 80.0):
        seen = []
        network = lambda x, time, seen=seen: (seen.extend([x, time]), jnp.asarray(value))[1]  # noqa: E731
        x0 = denoiser(schedule, EDM(), network)(jnp.asarray(sigma * x), jnp.float32(sigma / 80)).x0
        noisy = torch.from_numpy(sigma * x)
        np.testing.assert_allclose(seen[0], theirs.precondition_inputs(noisy, sigma), rtol=2e-6)
        np.testing.assert_allclose(seen[1], theirs.precondition_noise(sigma).expand(2), rtol=1e-5)
        wanted = theirs.precondition_outputs(noisy, torch.from_numpy(value), sigma)
        np.testing.assert_allclose(x0, wanted, rtol=2e-5, atol=1e-6)
        back = Prediction(x0, jnp.asarray(sigma * x), jnp.full(2, sigma / 80), schedule, X0()).to(EDM()).value
        np.testing.assert_allclose(back, value, atol=2e-6 * (1 + 1 / sigma) * (1 + sigma))


@pytest.mark.parametrize("steps", [4, 10, 50, 999])
@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize("name", DISCRETE)
def test_timestep_spacing(name, spacing, steps):
    theirs = peer(name, diffusers.DDIMScheduler, timestep_spacing=spacing)
    theirs.set_timesteps(steps)
    times = time_grid(spacing, steps, DISCRETE[name][-1]())
    np.testing.assert_array_equal(np.round(1000 * times[:-1]) - 1, theirs.timesteps)


def test_karras_sigmas_on_a_discrete_schedule():
    theirs = peer("scaled_linear", diffusers.EulerDiscreteScheduler, use_karras_sigmas=True)
    theirs.set_timesteps(15)
    schedule = schedules.ScaledLinear()
    times = time_grid("karras", 15, schedule)
    np.testing.assert_allclose(schedule.sigma(times) / schedule.alpha(times), theirs.sigmas, rtol=2e-3, atol=1e-9)


def test_karras_sigmas_of_edm():
    theirs = diffusers.EDMEulerScheduler()
    theirs.set_timesteps(18)
    np.testing.assert_allclose(80 * time_grid("karras", 18, schedules.EDM()), theirs.sigmas, rtol=1e-5, atol=1e-9)


def test_log_snr_is_their_lu_lambdas():
    theirs = peer("scaled_linear", diffusers.DPMSolverMultistepScheduler, use_lu_lambdas=True)
    theirs.set_timesteps(15)
    schedule = schedules.ScaledLinear()
    times = time_grid("log_snr", 15, schedule)
    np.testing.assert_allclose(schedule.sigma(times) / schedule.alpha(times), theirs.sigmas, rtol=2e-3, atol=1e-9)


def test_shifted_flow_times():
    theirs = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    schedule = schedules.RectifiedFlow(shift=3.0)
    levels = np.arange(1, 1001) / 1000
    np.testing.assert_allclose(schedule.sigma(levels)[::-1], theirs.sigmas, rtol=1e-5)
    np.testing.assert_allclose(schedule.conditioning(levels)[::-1], theirs.timesteps, rtol=1e-5)
