"""The denoising loss: known minima, weights as ratios of squared errors, one example at a time; the hybrid loss."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen import registry
from jaxgen.diffusion import schedules
from jaxgen.diffusion.bound import level_term
from jaxgen.diffusion.loss import denoising_loss, hybrid_loss
from jaxgen.diffusion.prediction import Prediction, denoiser, reverse_log_variance
from jaxgen.diffusion.prediction_types import EDM, X0, Epsilon, PosteriorMean, V, Velocity
from jaxgen.diffusion.process import diffuse, posterior
from jaxgen.diffusion.weighting import EDM as EDMWeighting
from jaxgen.diffusion.weighting import P2, SNR, MinSNR, Sigmoid, TruncatedSNR
from jaxgen.errors import UserError

TYPES = {name: cls() for name, cls in registry.classes("prediction_type").items()}
WEIGHTINGS = (SNR(), TruncatedSNR(), MinSNR(), P2(), EDMWeighting(), Sigmoid())
LINEAR = schedules.Linear()
T = jnp.asarray([0.02, 0.1, 0.5, 0.9])


def _batch(n=6):
    x0 = jax.random.uniform(jax.random.key(0), (n, 4, 4, 2), minval=-1, maxval=1)
    return x0, jax.random.normal(jax.random.key(1), x0.shape), jnp.linspace(0.1, 1, n)


def _perfect(schedule, x0, prediction_type, off=0.0):
    """A denoiser that knows x0, off by a constant in it."""

    def denoise(x, t):
        return Prediction(x0 + off, x, t, schedule, X0()).to(prediction_type)

    return denoise


@pytest.mark.parametrize("name", TYPES)
def test_a_perfect_network_has_no_loss(name):
    x0, noise, t = _batch()
    losses = denoising_loss(_perfect(LINEAR, x0, TYPES[name]), LINEAR, x0, t, noise)
    assert losses.shape == (6,)
    np.testing.assert_allclose(losses, 0, atol=1e-6)


@pytest.mark.parametrize("weighting", WEIGHTINGS, ids=lambda w: type(w).__name__)
@pytest.mark.parametrize("name", TYPES)
def test_a_weight_means_the_same_for_every_prediction_type(name, weighting):
    """An x0 that is off by 0.1 costs 0.01 times the weight of x0, whatever the network predicts."""
    x0, noise, t = _batch()
    losses = denoising_loss(_perfect(LINEAR, x0, TYPES[name], 0.1), LINEAR, x0, t, noise, weighting)
    np.testing.assert_allclose(losses, 0.01 * weighting(LINEAR, t, X0()), rtol=2e-2)


@pytest.mark.parametrize("schedule", [schedules.RectifiedFlow(shift=3.0), schedules.EDM(), schedules.SubVP()])
@pytest.mark.parametrize("name", ["epsilon", "v", "score", "velocity", "edm"])
def test_so_it_does_where_the_variance_is_not_preserved(name, schedule):
    x0, noise, _ = _batch(4)
    losses = denoising_loss(_perfect(schedule, x0, TYPES[name], 0.1), schedule, x0, T, noise, MinSNR())
    np.testing.assert_allclose(losses, 0.01 * MinSNR()(schedule, T, X0()), rtol=2e-2)


def test_known_forms_of_the_weights():
    """In the forms in which the papers state them, from alpha_bar."""
    alpha_bar = np.exp(LINEAR.log_alpha_bar[[20, 100, 500, 900]])
    snr = alpha_bar / (1 - alpha_bar)
    for weighting, prediction_type, expected in (
        (SNR(), Epsilon(), np.ones(4)),
        (TruncatedSNR(), Epsilon(), np.maximum(1, 1 / snr)),
        (MinSNR(), X0(), np.minimum(snr, 5)),
        (MinSNR(), Epsilon(), np.minimum(snr, 5) / snr),
        (MinSNR(gamma=2.0), V(), np.minimum(snr, 2) / (snr + 1)),
        (P2(gamma=0.5), Epsilon(), 1 / np.sqrt(1 + snr)),
        (P2(k=3.0), Epsilon(), 1 / (3 + snr)),
        (Sigmoid(bias=-1.0), Epsilon(), 1 / (1 + snr * np.exp(1.0))),
    ):
        np.testing.assert_allclose(weighting(LINEAR, T, prediction_type), expected, rtol=2e-4)


def test_edm_weight_is_karras_lambda_and_one_in_their_form():
    schedule = schedules.EDM(sigma_data=0.4)
    sigma = 80 * np.asarray(T, np.float64)
    expected = (sigma**2 + 0.4**2) / (sigma * 0.4) ** 2
    np.testing.assert_allclose(EDMWeighting()(schedule, T, X0()), expected, rtol=1e-5)
    for other in (schedule, LINEAR, schedules.RectifiedFlow()):
        np.testing.assert_allclose(EDMWeighting()(other, T, EDM()), 1, rtol=1e-4)


def test_the_simple_loss_of_a_velocity_is_flow_matching():
    schedule = schedules.RectifiedFlow()
    x0, noise, _ = _batch(4)
    denoise = denoiser(schedule, Velocity(), lambda x, time: jnp.full_like(x, 0.25))
    losses = denoising_loss(denoise, schedule, x0, T, noise)
    np.testing.assert_allclose(losses, jnp.square(0.25 - (noise - x0)).mean((1, 2, 3)), rtol=1e-4)


def test_what_does_not_exist_is_refused():
    with pytest.raises(UserError, match="min_snr"):
        registry.find("weighting", "min_snrr", "config.method.weighting")
    with pytest.raises(UserError, match="gamma"):
        MinSNR(gamma=0.0)
    with pytest.raises(UserError, match="'mean'"):
        registry.find("prediction_type", "mean", "config.method.prediction_type")
    with pytest.raises(UserError, match="discrete"):
        SNR()(schedules.RectifiedFlow(), T, PosteriorMean())


def test_examples_do_not_see_each_other():
    x0, noise, t = _batch()
    denoise = denoiser(LINEAR, Epsilon(), lambda x, time: 0.3 * x)
    whole = denoising_loss(denoise, LINEAR, x0, t, noise, MinSNR())
    alone = denoising_loss(denoise, LINEAR, x0[2:3], t[2:3], noise[2:3], MinSNR())
    np.testing.assert_allclose(whole[2:3], alone, rtol=1e-6)


def test_the_best_constant_for_epsilon_is_its_mean():
    """Predicting 0 for epsilon costs its variance, 1."""
    key = jax.random.key(2)
    x0, noise = jnp.zeros((2000, 4)), jax.random.normal(key, (2000, 4))
    denoise = denoiser(LINEAR, Epsilon(), lambda x, time: jnp.zeros_like(x))
    losses = denoising_loss(denoise, LINEAR, x0, jnp.full(2000, 0.5), noise)
    assert abs(float(losses.mean()) - 1) < 0.05


def _with_variance(value, log_variance):
    def network(x, time):
        return jnp.concatenate([jnp.broadcast_to(v, x.shape) for v in (value, log_variance)], axis=-1)

    return denoiser(LINEAR, Epsilon(), network, learned_variance=True)


@pytest.mark.nightly
def test_the_hybrid_loss_teaches_the_mean_by_the_simple_one_and_the_variance_by_the_bound():
    x0, noise, _ = _batch(4)
    t = jnp.asarray([0.001, 0.002, 0.4, 1.0])
    value, place = 0.1 * noise, jnp.full_like(x0, 0.2)

    def hybrid(value, place):
        return hybrid_loss(_with_variance(value, place), LINEAR, x0, t, noise)

    def simple(value):
        return denoising_loss(_with_variance(value, place), LINEAR, x0, t, noise)

    def bound(place):
        now = _with_variance(value, place)(diffuse(LINEAR, x0, t, noise), t)
        return level_term(now, x0, t - 0.001, "learned")

    losses = hybrid(value, place)
    assert losses.shape == (4,) and np.isfinite(losses).all()
    np.testing.assert_allclose(losses, simple(value) + 1e-3 * 1000 * bound(place), rtol=2e-3)
    of_value, of_place = jax.grad(lambda *a: hybrid(*a).sum(), argnums=(0, 1))(value, place)
    np.testing.assert_allclose(of_value, jax.grad(lambda v: simple(v).sum())(value), rtol=1e-5)
    assert np.isfinite(of_place).all() and (np.abs(of_place).max((1, 2, 3)) > 0).all()


@pytest.mark.nightly
def test_the_best_learned_variance_is_that_of_the_reverse_step():
    """For data N(0, 0.5**2) the reverse step's variance is known; there the bound's slope vanishes."""
    t, s, std = jnp.full(200_000, 0.5), jnp.full(200_000, 0.499), 0.5
    x0 = std * jax.random.normal(jax.random.key(0), (200_000, 1))
    noise = jax.random.normal(jax.random.key(1), x0.shape)
    alpha, sigma = LINEAR.alpha(t)[:, None], LINEAR.sigma(t)[:, None]
    x = diffuse(LINEAR, x0, t, noise)
    mean = alpha * std**2 / (alpha**2 * std**2 + sigma**2) * x
    of_x, of_x0, variance = posterior(LINEAR, t, s, x)
    exact = variance + of_x0**2 * std**2 * sigma**2 / (alpha**2 * std**2 + sigma**2)

    def at(place):
        log_variance = jnp.full_like(x, place)
        return Prediction(mean, x, t, LINEAR, X0(), log_variance)

    low, high = (float(reverse_log_variance(at(p), s)[0, 0]) for p in (-1.0, 1.0))
    best = 2 * (float(jnp.log(exact[0, 0])) - low) / (high - low) - 1
    assert -1 < best < 1
    slope = jax.jit(jax.grad(lambda place: level_term(at(place), x0, s, "learned").mean()))
    left, here, right = (float(slope(jnp.float32(best + d))) for d in (-0.4, 0.0, 0.4))
    assert left < 0 < right and abs(here) < 0.02 * (right - left)


@pytest.mark.slow
def test_the_hybrid_loss_needs_levels_and_a_learned_variance():
    x0, noise, t = _batch(2)
    with pytest.raises(UserError, match="levels"):
        hybrid_loss(lambda x, t: None, schedules.RectifiedFlow(), x0, t, noise)
    with pytest.raises(UserError, match="learned_variance"):
        hybrid_loss(_perfect(LINEAR, x0, Epsilon()), LINEAR, x0, t, noise)
