"""Predictions: every form is read from every other; the posterior against brute force."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.diffusion import schedule as schedules
from jaxgen.diffusion.prediction import Prediction, denoiser, posterior
from jaxgen.errors import UserError

KINDS = ("x0", "epsilon", "v", "score", "posterior_mean")
SCHEDULES = {
    "linear": schedules.linear(),
    "cosine": schedules.cosine(),
    "continuous_cosine": schedules.continuous_cosine(),
}


def _truth(schedule, t, shape=(2, 4, 4, 3)):
    """x0, epsilon and x at time t, and every form of the exact prediction, in float64 where it matters."""
    x0 = jax.random.uniform(jax.random.key(0), shape, minval=-1, maxval=1)
    epsilon = jax.random.normal(jax.random.key(1), shape)
    times = jnp.full(shape[:1], t, jnp.float32)
    alpha, sigma = schedule.alpha(jnp.float32(t)), schedule.sigma(jnp.float32(t))
    return x0, epsilon, alpha * x0 + sigma * epsilon, times, float(alpha), float(sigma)


@pytest.mark.parametrize("t", [0.001, 0.02, 0.5, 0.98, 1.0])
@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("kind,other", list(itertools.permutations(KINDS, 2)))
def test_conversions_invert_each_other_at_both_ends_in_float32(name, kind, other, t):
    schedule = SCHEDULES[name]
    if "posterior_mean" in (kind, other) and not schedule.steps:
        with pytest.raises(UserError, match="discrete"):
            _ = Prediction(*(jnp.zeros((2, 4, 4, 3)),) * 2, jnp.ones(2), schedule, "x0").posterior_mean
        return
    x0, epsilon, x, times, alpha, sigma = _truth(schedule, t)
    exact = Prediction(alpha * epsilon - sigma * x0, x, times, schedule, "v")
    there = exact.to(kind).to(other)
    back = there.to(kind)
    # float32 rounding of x, seen through the form: x0 and epsilon are x over alpha and over sigma
    slack = 2e-6 * (1 + 1 / alpha) * (1 + 1 / sigma)
    want = getattr(exact, kind)
    np.testing.assert_allclose(back.value, want, atol=slack * (1 + float(jnp.abs(want).max())))
    np.testing.assert_allclose(there.x0, x0, atol=slack * 20)


@pytest.mark.parametrize("kind", ("x0", "epsilon", "v"))
def test_the_stable_forms_give_x0_and_epsilon_exactly_enough(kind):
    schedule = SCHEDULES["linear"]
    for t in (0.001, 1.0):
        x0, epsilon, x, times, alpha, sigma = _truth(schedule, t)
        value = {"x0": x0, "epsilon": epsilon, "v": alpha * epsilon - sigma * x0}[kind]
        got = Prediction(value, x, times, schedule, kind)
        np.testing.assert_allclose(got.x0, x0, atol=1e-4 if kind == "epsilon" and t == 1 else 3e-6)
        np.testing.assert_allclose(got.epsilon, epsilon, atol=1e-4 if kind == "x0" else 3e-6)


def test_the_score_is_the_gradient_of_the_log_density():
    """For data at one point the marginal is a Gaussian; autodiff of its log density is the score."""
    schedule, t = SCHEDULES["cosine"], jnp.float32(0.3)
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    x0, x = jnp.asarray([[0.2, -0.5]]), jnp.asarray([[0.9, 0.1]])
    gradient = jax.grad(lambda x: jax.scipy.stats.norm.logpdf(x, alpha * x0, sigma).sum())(x)
    np.testing.assert_allclose(Prediction(x0, x, t[None], schedule, "x0").score, gradient, rtol=1e-5)


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_posterior_against_bayes_on_a_grid(name):
    """q(x_s | x_t, x_0) by multiplying the two Gaussians on a fine grid."""
    schedule = SCHEDULES[name]
    t, s, x0, x_t = jnp.float32(0.6), jnp.float32(0.35), 0.4, -0.3
    grid = np.linspace(-6, 6, 200_001)
    a_t, a_s, s_t, s_s = (float(f(u)) for f in (schedule.alpha, schedule.sigma) for u in (t, s))
    ratio = a_t / a_s
    step2 = s_t**2 - ratio**2 * s_s**2
    log = -((grid - a_s * x0) ** 2) / (2 * s_s**2) - (x_t - ratio * grid) ** 2 / (2 * step2)
    density = np.exp(log - log.max())
    density /= density.sum()
    mean = (density * grid).sum()
    variance = (density * (grid - mean) ** 2).sum()
    x = jnp.full((1, 1), x_t)
    of_x, of_x0, got = posterior(schedule, t, s, x)
    np.testing.assert_allclose(of_x * x_t + of_x0 * x0, mean, rtol=1e-4)
    np.testing.assert_allclose(got, variance, rtol=1e-4)


def test_clipping_moves_epsilon_with_x0():
    schedule, t = SCHEDULES["cosine"], jnp.full((1,), 0.5)
    prediction = Prediction(jnp.full((1, 2), 3.0), jnp.full((1, 2), 0.5), t, schedule, "x0").clip()
    assert float(prediction.x0.max()) == 1.0
    rebuilt = prediction.alpha * prediction.x0 + prediction.sigma * prediction.epsilon
    np.testing.assert_allclose(rebuilt, prediction.x, atol=1e-6)


def test_a_network_of_wrong_width_is_named():
    denoise = denoiser(SCHEDULES["linear"], "epsilon", lambda x, time: jnp.concatenate([x, x], -1))
    with pytest.raises(UserError, match="out_channels"):
        denoise(jnp.zeros((1, 4, 4, 3)), 0.5)


def test_an_unknown_form_is_refused():
    prediction = Prediction(jnp.zeros((1, 2)), jnp.zeros((1, 2)), jnp.ones(1), SCHEDULES["linear"], "x0")
    with pytest.raises(UserError, match="epsilon"):
        prediction.to("eps")
