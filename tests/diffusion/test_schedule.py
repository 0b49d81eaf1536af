"""Schedules: variance is preserved, inverses invert, both ends hold in float32, marginals by Monte Carlo."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.diffusion import schedule as schedules
from jaxgen.diffusion.loss import diffuse
from jaxgen.errors import UserError

ALL = {
    "linear": schedules.linear(),
    "cosine": schedules.cosine(),
    "linear_250": schedules.linear(steps=250, beta_end=0.08),
    "continuous_cosine": schedules.continuous_cosine(),
}


@pytest.fixture(params=ALL, name="schedule")
def _schedule(request):
    return ALL[request.param]


def test_the_variance_is_preserved_at_every_time(schedule):
    t = jnp.linspace(0, 1, 1001)
    np.testing.assert_allclose(schedule.alpha(t) ** 2 + schedule.sigma(t) ** 2, 1, atol=3e-7)


def test_noise_only_grows(schedule):
    t = jnp.linspace(0, 1, 1001)
    assert (np.diff(np.asarray(schedule.log_snr(t))[1:]) < 0).all()
    assert schedule.alpha(jnp.float32(0)) > 0.9999
    assert schedule.alpha(jnp.float32(1)) < 0.01


def test_time_inverts_log_snr_at_both_ends_and_between_levels(schedule):
    t = jnp.asarray([1e-3, 4e-3, 0.1234, 0.5, 0.9, 0.999, 1.0])
    np.testing.assert_allclose(schedule.time(schedule.log_snr(t)), t, rtol=2e-4, atol=2e-6)


def test_log_snr_agrees_with_alpha_and_sigma(schedule):
    t = jnp.linspace(0.01, 1, 100)
    direct = 2 * (jnp.log(schedule.alpha(t)) - jnp.log(schedule.sigma(t)))
    np.testing.assert_allclose(schedule.log_snr(t), direct, rtol=1e-4, atol=1e-4)


def test_discrete_levels_are_the_products_of_the_papers():
    """alpha_bar as the running product of 1 - beta in float64, read at the times i / steps."""
    schedule = schedules.linear()
    betas = 1e-4 + (0.02 - 1e-4) * np.arange(1000) / 999
    alpha_bar = 1.0
    for i, beta in enumerate(betas, 1):
        alpha_bar *= 1 - beta
        if i in (1, 2, 500, 999, 1000):
            np.testing.assert_allclose(schedule.alpha(jnp.float32(i / 1000)) ** 2, alpha_bar, rtol=3e-6)
            np.testing.assert_allclose(schedule.sigma(jnp.float32(i / 1000)) ** 2, 1 - alpha_bar, rtol=3e-6)
    assert schedule.alpha(jnp.float32(0)) == 1 and schedule.sigma(jnp.float32(0)) == 0


def test_published_landmarks():
    """Ho et al. (2020), Section 4: the prior term of the linear schedule is about 1e-5 bits per dimension, so
    alpha_bar at the end is about 4e-5; Nichol & Dhariwal (2021): the cosine one is near a half at the middle."""
    assert 3e-5 < float(schedules.linear().alpha(jnp.float32(1)) ** 2) < 5e-5
    assert abs(float(schedules.cosine().alpha(jnp.float32(0.5)) ** 2) - 0.5) < 0.01


def test_the_network_sees_the_numbers_of_weight_files():
    schedule = schedules.linear()
    t = jnp.asarray([1, 2, 999, 1000]) / 1000
    assert schedule.conditioning(t).tolist() == [0, 1, 998, 999]
    assert schedule.conditioning(t).dtype == jnp.float32


def test_low_precision_times_still_give_float32(schedule):
    t = jnp.asarray([0.001, 0.5], jnp.bfloat16)
    for of_t in (schedule.alpha, schedule.sigma, schedule.log_snr, schedule.conditioning):
        assert of_t(t).dtype == jnp.float32
    assert float(schedule.sigma(t)[0]) > 0


def test_float64_times_give_float64(schedule):
    with jax.enable_x64(True):
        t = jnp.linspace(0.1, 1, 10, dtype=jnp.float64)
        assert schedule.alpha(t).dtype == jnp.float64
        np.testing.assert_allclose(schedule.alpha(t) ** 2 + schedule.sigma(t) ** 2, 1, atol=1e-14)


def test_the_slope_in_time_is_that_of_finite_differences(schedule):
    with jax.enable_x64(True):
        t, h = jnp.float64(0.30037), 1e-6
        slope = jax.grad(lambda t: schedule.alpha(t))(t)
        np.testing.assert_allclose(slope, (schedule.alpha(t + h) - schedule.alpha(t - h)) / (2 * h), rtol=1e-5)


@pytest.mark.parametrize("t", [0.05, 0.5, 1.0])
def test_forward_marginals_by_monte_carlo(schedule, t):
    """One step of noise after the other gives the closed form's mean and variance."""
    key, chains = jax.random.key(0), 20_000
    levels = np.linspace(0, t, 41)
    x = jnp.full((chains,), 0.7) * schedule.alpha(jnp.float32(0))
    for i, (s, now) in enumerate(zip(levels[:-1], levels[1:], strict=True)):
        step = schedule.alpha(jnp.float32(now)) / schedule.alpha(jnp.float32(s))
        std = jnp.sqrt(schedule.sigma(jnp.float32(now)) ** 2 - step**2 * schedule.sigma(jnp.float32(s)) ** 2)
        x = step * x + std * jax.random.normal(jax.random.fold_in(key, i), x.shape)
    closed = diffuse(
        schedule, jnp.full((chains,), 0.7), jnp.full((chains,), t), jax.random.normal(jax.random.key(1), (chains,))
    )
    error = 4 / np.sqrt(chains)
    assert abs(x.mean() - schedule.alpha(jnp.float32(t)) * 0.7) < error
    assert abs(x.std() - schedule.sigma(jnp.float32(t))) < error
    assert abs(x.mean() - closed.mean()) < 1.5 * error
    assert abs(x.std() - closed.std()) < 1.5 * error


def test_bad_schedules_are_refused():
    with pytest.raises(UserError, match="above 0 and at most 1"):
        schedules.linear(beta_end=1.5)
    with pytest.raises(UserError, match="at least 1"):
        schedules.cosine(steps=0)
    with pytest.raises(UserError, match="below"):
        schedules.continuous_cosine(log_snr_min=3, log_snr_max=-3)
