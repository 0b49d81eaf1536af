"""Stochastic solvers against diffusers' schedulers: the same network, grid and noise give the same samples.

The network is one JAX function, called by both sides; the schedulers' noise is replaced by what the solver draws.
"""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

from jaxgen.diffusion import schedules  # noqa: E402
from jaxgen.diffusion.noise import per_image_noise  # noqa: E402
from jaxgen.diffusion.prediction import Prediction, denoiser  # noqa: E402
from jaxgen.diffusion.prediction_types import EDM, X0, Epsilon, Score, V, Velocity  # noqa: E402
from jaxgen.diffusion.samplers.dpmpp import DPMpp2MSDE as dpmpp_2m_sde  # noqa: E402
from jaxgen.diffusion.samplers.edm import EDM as edm  # noqa: E402
from jaxgen.diffusion.samplers.predictor_corrector import PredictorCorrector as predictor_corrector  # noqa: E402
from jaxgen.diffusion.samplers.sde import EulerAncestral as euler_ancestral  # noqa: E402
from jaxgen.diffusion.samplers.sde import EulerMaruyama as euler_maruyama  # noqa: E402
from jaxgen.diffusion.spacing import time_grid  # noqa: E402

pytestmark = pytest.mark.parity

SHAPE = (3, 6, 6, 2)
KEYS = jax.random.split(jax.random.key(0), SHAPE[0])
SD = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}


@jax.jit
def network(x, time):
    """Nothing that was trained: pixels, neighbours and the time mix, and the output is about of unit size."""
    time = jnp.broadcast_to(jnp.asarray(time, jnp.float32), x.shape[:1])[:, None, None, None]
    near = jnp.roll(x, 1, axis=1) - 0.5 * jnp.roll(x, 1, axis=2)
    return jnp.tanh(0.9 * x + 0.3 * near + 0.1 * jnp.sin(time / 150)) * (1 + 0.2 * jnp.cos(time / 90))


def theirs(x, time):
    """The network, for torch."""
    return torch.from_numpy(np.asarray(network(jnp.asarray(x.numpy()), float(time)), np.float32))


def start(std):
    return std * per_image_noise(KEYS, 0, SHAPE[1:])


def feed(monkeypatch, scheduler, rows):
    """Lets a scheduler's module draw the noise of these rows of our solver's coefficients."""
    draws = iter(rows)

    def given(shape, *_, **__):
        z = np.asarray(per_image_noise(KEYS, next(draws) + 1, SHAPE[1:]))
        assert tuple(shape) == z.shape
        return torch.from_numpy(z.copy())

    monkeypatch.setattr(importlib.import_module(type(scheduler).__module__), "randn_tensor", given)


def close(ours, peer):
    assert peer.std() > 0.1
    np.testing.assert_allclose(ours, peer.numpy(), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind,name", [(Epsilon(), "epsilon"), (V(), "v_prediction")])
@pytest.mark.parametrize("spacing,steps", [("trailing", 12), ("leading", 20)])
def test_euler_ancestral(monkeypatch, kind, name, spacing, steps):
    scheduler = diffusers.EulerAncestralDiscreteScheduler(prediction_type=name, timestep_spacing=spacing, **SD)
    scheduler.set_timesteps(steps)
    feed(monkeypatch, scheduler, range(steps))
    schedule = schedules.ScaledLinear()
    times = time_grid(spacing, steps, schedule)
    np.testing.assert_allclose(1000 * times[:-1] - 1, scheduler.timesteps, atol=1e-6)
    x = start(1.0)
    ours = euler_ancestral(steps)(denoiser(schedule, kind, network), schedule, x, KEYS, times=times)
    sample = torch.from_numpy(np.asarray(x / schedule.alpha(times[0])))  # they work in x / alpha
    for t in scheduler.timesteps:
        output = theirs(scheduler.scale_model_input(sample, t), t)
        sample = scheduler.step(output, t, sample).prev_sample
    close(ours, sample)


@pytest.mark.parametrize("eta", [0.5, 1.0])
def test_euler_ancestral_for_rectified_flow(monkeypatch, eta):
    from diffusers.schedulers.scheduling_ltx_euler_ancestral_rf import LTXEulerAncestralRFScheduler

    scheduler, steps = LTXEulerAncestralRFScheduler(eta=eta), 10
    schedule = schedules.RectifiedFlow(shift=3.0)
    times = time_grid("uniform", steps, schedule)
    scheduler.set_timesteps(sigmas=schedule.sigma(times).tolist())
    feed(monkeypatch, scheduler, range(steps))
    x = start(1.0)

    def denoise(x, t):  # their velocity is noise minus data, whatever the shift of the times
        v, sigma = network(x, 1000 * schedule.sigma(t)), schedule.sigma(t)
        return Prediction(x - sigma * v, x, jnp.broadcast_to(t, x.shape[:1]), schedule, X0())

    ours = euler_ancestral(steps, eta=eta, flow=True)(denoise, schedule, x, KEYS)
    sample = torch.from_numpy(np.asarray(x))
    for t, sigma in zip(scheduler.timesteps, scheduler.sigmas, strict=False):
        sample = scheduler.step(theirs(sample, 1000 * float(sigma)), t, sample).prev_sample
    close(ours, sample)


@pytest.mark.parametrize("correction", ["midpoint", "heun"])
@pytest.mark.parametrize("steps,beta_schedule", [(10, "scaled_linear"), (25, "squaredcos_cap_v2")])
def test_dpmpp_2m_sde(correction, steps, beta_schedule):
    scheduler = diffusers.DPMSolverMultistepScheduler(
        **{**SD, "beta_schedule": beta_schedule},
        algorithm_type="sde-dpmsolver++",
        solver_type=correction,
        timestep_spacing="leading",
        steps_offset=1,
    )
    scheduler.set_timesteps(steps)
    schedule = {"scaled_linear": schedules.ScaledLinear, "squaredcos_cap_v2": schedules.Cosine}[beta_schedule]()
    times = np.append((scheduler.timesteps.numpy() + 1) / 1000, 0.0)
    x = start(1.0)
    solver = dpmpp_2m_sde(steps, correction=correction)
    ours = solver(denoiser(schedule, Epsilon(), network), schedule, x, KEYS, times=times)
    sample = torch.from_numpy(np.asarray(x))
    for i, t in enumerate(scheduler.timesteps):
        z = torch.from_numpy(np.asarray(per_image_noise(KEYS, i + 1, SHAPE[1:])))
        sample = scheduler.step(theirs(sample, t), t, sample, variance_noise=z).prev_sample
    close(ours, sample)


def test_dpmpp_2m_sde_for_rectified_flow():
    steps = 12
    scheduler = diffusers.DPMSolverMultistepScheduler(
        algorithm_type="sde-dpmsolver++",
        prediction_type="flow_prediction",
        use_flow_sigmas=True,
        flow_shift=2.0,
    )
    scheduler.set_timesteps(steps)
    sigmas = scheduler.sigmas.numpy().astype(np.float64)
    schedule = schedules.RectifiedFlow()
    x = start(1.0)
    ours = dpmpp_2m_sde(steps)(denoiser(schedule, Velocity(), network), schedule, x, KEYS, times=sigmas)
    sample = torch.from_numpy(np.asarray(x))
    for i, t in enumerate(scheduler.timesteps):
        z = torch.from_numpy(np.asarray(per_image_noise(KEYS, i + 1, SHAPE[1:])))
        sample = scheduler.step(theirs(sample, 1000 * sigmas[i]), t, sample, variance_noise=z).prev_sample
    close(ours, sample)


@pytest.mark.parametrize("correction", ["midpoint", "heun"])
def test_dpmpp_2m_sde_with_edm_preconditioning(monkeypatch, correction):
    steps = 16
    scheduler = diffusers.EDMDPMSolverMultistepScheduler(
        algorithm_type="sde-dpmsolver++", solver_type=correction, sigma_max=40.0
    )
    scheduler.set_timesteps(steps)
    feed(monkeypatch, scheduler, range(steps))
    schedule = schedules.EDM(sigma_max=40.0)
    x = start(schedule.prior_std)
    solver = dpmpp_2m_sde(steps, spacing="karras", correction=correction)
    ours = solver(denoiser(schedule, EDM(), network), schedule, x, KEYS)
    sample = torch.from_numpy(np.asarray(x))
    for t in scheduler.timesteps:
        output = theirs(scheduler.scale_model_input(sample, t), t)
        sample = scheduler.step(output, t, sample).prev_sample
    close(ours, sample)


def test_edm_with_churn(monkeypatch):
    """Their KarrasVeScheduler holds Algorithm 2, driven here as in its pipeline."""
    from diffusers.schedulers.deprecated.scheduling_karras_ve import KarrasVeScheduler

    steps, options = 8, {"s_churn": 2.4, "s_min": 0.05, "s_max": 20.0, "s_noise": 1.007}
    scheduler = KarrasVeScheduler(sigma_min=0.02, sigma_max=40.0, **options)
    scheduler.set_timesteps(steps)
    rows = 2 * steps - 1
    feed(monkeypatch, scheduler, [rows, *range(1, rows, 2)])
    schedule = schedules.EDM(sigma_max=40.0)
    sigmas = np.append(np.geomspace(40.0, 0.02, steps), 0.0)
    x = start(40.0)
    denoise = denoiser(schedule, EDM(), network)
    ours = edm(steps, **options)(denoise, schedule, x, KEYS, times=sigmas / 40)

    def model(x, sigma):  # (x0 - x) / sigma
        now = denoise(jnp.asarray(x.numpy()), jnp.float32(sigma / 40))
        return torch.from_numpy(np.asarray(-now.epsilon))

    sample = torch.from_numpy(np.asarray(x))
    for sigma, then in zip(sigmas[:-1], sigmas[1:], strict=True):
        hat, sigma_hat = scheduler.add_noise_to_input(sample, sigma)
        out = scheduler.step(model(hat, sigma_hat), sigma_hat, then, hat)
        if then:
            slope = torch.as_tensor(out["derivative"])
            out = scheduler.step_correct(model(out.prev_sample, then), sigma_hat, then, hat, out.prev_sample, slope)
        sample = out.prev_sample
    close(ours, sample)


def test_euler_maruyama(monkeypatch):
    """Their ScoreSdeVpScheduler takes steps of 1 / N, which is a grid's when its times end at 1 / N."""
    from diffusers.schedulers.deprecated.scheduling_sde_vp import ScoreSdeVpScheduler

    steps = 40
    scheduler = ScoreSdeVpScheduler(sampling_eps=1 / steps)
    scheduler.set_timesteps(steps)
    feed(monkeypatch, scheduler, range(steps))
    schedule, x = schedules.VP(), start(1.0)
    denoise = denoiser(schedule, Epsilon(), network)
    ours = euler_maruyama(steps, noise_last=True)(denoise, schedule, x, KEYS)
    sample = torch.from_numpy(np.asarray(x))
    for t in scheduler.timesteps:
        sample, _ = scheduler.step_pred(theirs(sample, 1000 * t), sample, t)
    close(ours, sample)


@pytest.mark.parametrize("corrections", [0, 1, 2])
def test_predictor_corrector(monkeypatch, corrections):
    """Theirs averages the norms over the batch; on a batch of one that is no difference."""
    steps, levels = 15, 16
    scheduler = diffusers.ScoreSdeVeScheduler(sigma_min=0.05, sigma_max=20.0, snr=0.16)
    scheduler.set_timesteps(levels, 1e-5)
    scheduler.set_sigmas(levels, 0.05, 20.0, 1e-5)
    schedule = schedules.VE(sigma_min=0.05, sigma_max=20.0)
    key, x = KEYS[:1], start(20.0)[:1]
    draws = iter(range(steps * (1 + corrections)))

    def given(shape, *_, **__):
        return torch.from_numpy(np.asarray(per_image_noise(key, next(draws) + 1, SHAPE[1:])).copy())

    monkeypatch.setattr(importlib.import_module(type(scheduler).__module__), "randn_tensor", given)

    def score(x, sigma):
        return -network(x / jnp.sqrt(1 + sigma**2), 250 * jnp.log(sigma)) / sigma

    def denoise(x, t):
        return Prediction(score(x, schedule.sigma(t)), x, jnp.broadcast_to(t, x.shape[:1]), schedule, Score())

    solver = predictor_corrector(steps, corrections=corrections, snr=0.16, noise_last=True)
    ours = solver(denoise, schedule, x, key)
    sample = torch.from_numpy(np.asarray(x))
    for i, t in enumerate(scheduler.timesteps[:-1]):  # our schedule ends at sigma_min, theirs takes one more step, to 0
        sigma = scheduler.discrete_sigmas[levels - 1 - i]

        def model(x, sigma=sigma):
            return torch.from_numpy(np.asarray(score(jnp.asarray(x.numpy()), jnp.float32(sigma))))

        for _ in range(corrections):
            sample = scheduler.step_correct(model(sample), sample).prev_sample
        sample = scheduler.step_pred(model(sample), t, sample).prev_sample
    assert next(draws, None) is None
    close(ours, sample)
