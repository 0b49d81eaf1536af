"""Samplers, on data whose score is known in closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from jaxgen.diffusion import schedules
from jaxgen.diffusion.noise import per_image_noise
from jaxgen.diffusion.prediction import Prediction
from jaxgen.diffusion.prediction_types import X0, Epsilon, V
from jaxgen.diffusion.process import posterior
from jaxgen.diffusion.samplers.ddim import DDIM as ddim
from jaxgen.diffusion.samplers.ddpm import DDPM as ddpm
from jaxgen.diffusion.spacing import time_grid
from jaxgen.errors import UserError

LINEAR = schedules.Linear()
MEAN, STD = 0.3, 0.25


def gaussian(schedule, mean=MEAN, std=STD):
    """The exact denoiser of data N(mean, std**2): E[x0 | x_t] by the rule of conditional Gaussians."""

    def denoise(x, t):
        t = jnp.broadcast_to(jnp.asarray(t), x.shape[:1])
        alpha, sigma = schedule.alpha(t)[:, None], schedule.sigma(t)[:, None]
        gain = alpha * std**2 / (alpha**2 * std**2 + sigma**2)
        return Prediction(mean + gain * (x - alpha * mean), x, t, schedule, X0())

    return denoise


def draw(sampler, schedule=LINEAR, count=20_000, seed=0, denoise=None, **options):
    keys = jax.vmap(lambda i: jax.random.fold_in(jax.random.key(seed), i))(jnp.arange(count))
    start = per_image_noise(keys, 0, (1,))
    walk = sampler.trajectory if "frames" in options else sampler
    denoise = denoise or gaussian(schedule)
    run = jax.jit(lambda x, k: walk(denoise, schedule, x, k, **options), compiler_options=tiny.LONG)
    return run(start, keys)


@pytest.mark.slow
@pytest.mark.parametrize("schedule", [LINEAR, schedules.Cosine(), schedules.ContinuousCosine()])
@pytest.mark.parametrize(
    "sampler",
    [
        ddpm(1000, clip=False),
        ddpm(1000, clip=False, variance="large"),
        ddim(500, clip=False),
        ddim(500, clip=False, eta=1.0),
    ],
)
def test_gaussian_data_are_recovered(sampler, schedule):
    x = draw(sampler, schedule)
    assert abs(float(x.mean()) - MEAN) < 0.01
    assert abs(float(x.std()) - STD) < 0.012


def test_only_a_sampler_that_draws_noise_needs_keys():
    x, keys, denoise = jnp.ones((2, 1)), jax.random.split(jax.random.key(0), 2), gaussian(LINEAR)
    np.testing.assert_array_equal(ddim(5)(denoise, LINEAR, x), ddim(5)(denoise, LINEAR, x, keys))
    with pytest.raises(UserError, match="DDPM draws noise; give it one random key for each image"):
        ddpm(5)(denoise, LINEAR, x)


def test_ddim_without_noise_solves_the_flow_to_first_order():
    """For a Gaussian the flow maps quantile to quantile; the error falls as one over the steps."""
    errors = []
    with jax.enable_x64(True):
        for steps in (20, 40, 80, 160):
            x = jnp.linspace(-2, 2, 9, dtype=jnp.float64)[:, None]
            schedule = schedules.ContinuousCosine()
            alpha, sigma = schedule.alpha(jnp.float64(1)), schedule.sigma(jnp.float64(1))
            keys = jax.random.split(jax.random.key(0), 9)
            out = ddim(steps, clip=False)(gaussian(schedule), schedule, x, keys)
            a0, s0 = schedule.alpha(jnp.float64(0)), schedule.sigma(jnp.float64(0))
            z = (x - alpha * MEAN) / jnp.sqrt(alpha**2 * STD**2 + sigma**2)
            exact = a0 * MEAN + jnp.sqrt(a0**2 * STD**2 + s0**2) * z
            errors.append(float(jnp.abs(out - exact).max()))
    slopes = -np.diff(np.log2(errors))
    assert (np.abs(slopes - 1) < 0.2).all(), slopes


@pytest.mark.parametrize("steps", [7, 50, 1000])
def test_ddim_with_eta_one_is_the_ddpm_posterior(steps):
    """Song et al. (2020), Section 4.1, on the same keys: equal samples, not only equal laws."""
    a = draw(ddpm(steps, clip=False), count=64)
    b = draw(ddim(steps, clip=False, eta=1.0), count=64)
    np.testing.assert_allclose(a, b, atol=2e-5)


def one_step(sampler, t, s, x, x0):
    """One step of a one-step sampler where the image is known."""

    def denoise(x, t):
        return Prediction(jnp.full_like(x, x0), x, jnp.broadcast_to(jnp.asarray(t), x.shape[:1]), LINEAR, X0())

    keys = jax.random.split(jax.random.key(0), len(x))
    return sampler(denoise, LINEAR, x, keys, times=np.asarray([t, s]))


def test_one_ddpm_step_is_a_draw_of_the_posterior():
    t, s, x = jnp.float32(0.4), jnp.float32(0.399), jnp.full((50_000, 1), 0.8)
    out = one_step(ddpm(1000, clip=False), 0.4, 0.399, x, -0.2)
    of_x, of_x0, variance = posterior(LINEAR, t, s, x)
    assert abs(float(out.mean() - (of_x * 0.8 + of_x0 * -0.2))) < 4 * float(jnp.sqrt(variance / 50_000))
    assert abs(float(out.var() / variance) - 1) < 0.03


def test_large_variance_is_that_of_the_noise_added():
    """sigma_t**2 = beta_t (Ho et al. 2020, Section 3.2), at one discrete step."""
    out = one_step(ddpm(1000, variance="large"), 0.5, 0.499, jnp.zeros((50_000, 1)), 0.0)
    np.testing.assert_allclose(out.var(), LINEAR.betas[499], rtol=3e-2)
    table = ddpm(1000, variance="large").coefficients(LINEAR, np.asarray([0.5, 0.499]))
    np.testing.assert_allclose(table.noise**2, LINEAR.betas[499], rtol=1e-9)


@pytest.mark.parametrize("sampler", [ddpm(50), ddim(20), ddim(20, eta=0.5)])
def test_an_image_depends_on_its_own_key_alone(sampler):
    keys = jax.random.split(jax.random.key(3), 8)
    start = per_image_noise(keys, 0, (4, 4, 1))

    def denoise(x, t):
        return Prediction(0.5 * x, x, jnp.broadcast_to(jnp.asarray(t), x.shape[:1]), LINEAR, Epsilon())

    whole = sampler(denoise, LINEAR, start, keys)
    part = sampler(denoise, LINEAR, start[2:5], keys[2:5])
    np.testing.assert_allclose(whole[2:5], part, atol=1e-6)
    assert float(jnp.abs(whole[0] - whole[1]).max()) > 1e-2


def test_a_second_call_gives_what_the_first_gave():
    sampler = ddpm(20)
    np.testing.assert_array_equal(draw(sampler, count=16), draw(sampler, count=16))


def test_the_last_step_adds_no_noise():
    """With a perfect denoiser of a point, every sample ends on it, whatever the variance."""
    for sampler in (ddpm(100), ddpm(100, variance="large"), ddim(100, eta=1.0)):
        x = draw(sampler, count=32, denoise=gaussian(LINEAR, 0.3, 1e-4))
        np.testing.assert_allclose(x, 0.3, atol=1e-3)


def test_the_trajectory_is_thinned_and_ends_on_the_result():
    x, frames = draw(ddim(50), count=8, frames=5)
    assert frames.shape == (5, 8, 1)
    np.testing.assert_array_equal(frames[-1], x)
    np.testing.assert_array_equal(x, draw(ddim(50), count=8))
    spread = np.asarray(frames).std(axis=(1, 2))
    assert spread[0] > spread[-1]
    with pytest.raises(UserError, match="frames"):
        draw(ddim(5), count=2, frames=6)


@pytest.mark.parametrize("name", ["uniform", "quadratic"])
def test_grids_run_from_noise_to_data_on_the_levels(name):
    times = time_grid(name, 10, LINEAR)
    assert times[0] == 1 and times[-1] == 0 and (np.diff(times) < 0).all()
    np.testing.assert_allclose(times * 1000, np.round(times * 1000), atol=1e-9)


def test_every_step_of_the_full_grid_is_one_level():
    np.testing.assert_allclose(np.diff(time_grid("uniform", 1000, LINEAR)), -1e-3, atol=1e-12)


def test_impossible_grids_are_named():
    with pytest.raises(UserError, match="at most 1000"):
        time_grid("uniform", 1001, LINEAR)
    with pytest.raises(UserError, match="twice"):
        time_grid("quadratic", 900, LINEAR)
    with pytest.raises(UserError, match="at least 1"):
        time_grid("uniform", 0, LINEAR)
    with pytest.raises(UserError, match="eta"):
        ddim(10, eta=1.5)


@pytest.mark.parametrize("sampler", [ddpm(30), ddim(30)])
def test_evaluations_are_counted_before_the_run(sampler):
    calls = []

    def denoise(x, t):
        jax.debug.callback(lambda _: calls.append(1), t)
        return gaussian(LINEAR)(x, t)

    jax.block_until_ready(draw(sampler, count=2, denoise=denoise))
    jax.effects_barrier()
    assert len(calls) == sampler.evaluations == 30


def test_samples_stay_float32_though_the_network_is_not():
    def denoise(x, t):
        value = (0.1 * x).astype(jnp.bfloat16)
        return Prediction(value.astype(x.dtype), x, jnp.broadcast_to(jnp.asarray(t), x.shape[:1]), LINEAR, V())

    assert draw(ddim(10), count=4, denoise=denoise).dtype == jnp.float32
