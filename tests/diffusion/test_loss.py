"""The denoising loss: known minima, weights as ratios of squared errors, one example at a time."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.diffusion import schedule as schedules
from jaxgen.diffusion.loss import denoising_loss, sample_times, weight
from jaxgen.diffusion.prediction import Prediction, denoiser
from jaxgen.errors import UserError

KINDS = ("x0", "epsilon", "v", "score", "posterior_mean")
LINEAR = schedules.linear()


def _batch(n=6):
    x0 = jax.random.uniform(jax.random.key(0), (n, 4, 4, 2), minval=-1, maxval=1)
    return x0, jax.random.normal(jax.random.key(1), x0.shape), jnp.linspace(0.1, 1, n)


def _perfect(schedule, x0, kind, off=0.0):
    """A network that knows x0, off by a constant in it."""

    def network(x, time):
        t = (time + 1) / 1000
        return getattr(Prediction(x0 + off, x, t, schedule, "x0"), kind)

    return denoiser(schedule, kind, network)


@pytest.mark.parametrize("kind", KINDS)
def test_a_perfect_network_has_no_loss(kind):
    x0, noise, t = _batch()
    losses = denoising_loss(_perfect(LINEAR, x0, kind), LINEAR, x0, t, noise, kind)
    assert losses.shape == (6,)
    np.testing.assert_allclose(losses, 0, atol=1e-6)


@pytest.mark.parametrize("weighting", ["snr", "truncated_snr"])
@pytest.mark.parametrize("kind", ["x0", "epsilon", "v", "score"])
def test_a_weight_means_the_same_in_every_form(kind, weighting):
    """An x0 that is off by 0.1 costs 0.01 times the weight of x0, whatever the network predicts."""
    x0, noise, t = _batch()
    losses = denoising_loss(_perfect(LINEAR, x0, kind, 0.1), LINEAR, x0, t, noise, kind, weighting)
    np.testing.assert_allclose(losses, 0.01 * weight(weighting, LINEAR, t, "x0"), rtol=2e-2)


def test_weights_by_snr_are_the_simple_loss_of_epsilon():
    t = jnp.asarray([0.1, 0.5, 0.9])
    np.testing.assert_allclose(weight("snr", LINEAR, t, "epsilon"), 1, rtol=1e-5)
    assert (weight("truncated_snr", LINEAR, t, "x0") >= 1).all()


def test_an_undefined_weight_is_refused():
    with pytest.raises(UserError, match="posterior_mean"):
        weight("snr", LINEAR, jnp.ones(2), "posterior_mean")


def test_examples_do_not_see_each_other():
    x0, noise, t = _batch()
    denoise = denoiser(LINEAR, "epsilon", lambda x, time: 0.3 * x)
    whole = denoising_loss(denoise, LINEAR, x0, t, noise, "epsilon")
    alone = denoising_loss(denoise, LINEAR, x0[2:3], t[2:3], noise[2:3], "epsilon")
    np.testing.assert_allclose(whole[2:3], alone, rtol=1e-6)


def test_the_best_constant_for_epsilon_is_its_mean():
    """Predicting 0 for epsilon costs its variance, 1."""
    key = jax.random.key(2)
    x0, noise = jnp.zeros((2000, 4)), jax.random.normal(key, (2000, 4))
    denoise = denoiser(LINEAR, "epsilon", lambda x, time: jnp.zeros_like(x))
    losses = denoising_loss(denoise, LINEAR, x0, jnp.full(2000, 0.5), noise, "epsilon")
    assert abs(float(losses.mean()) - 1) < 0.05


def test_times_cover_every_level_evenly():
    small = schedules.linear(steps=10)
    t = sample_times(jax.random.key(0), 20_000, small)
    levels, counts = np.unique(np.round(np.asarray(t) * 10), return_counts=True)
    assert levels.tolist() == list(range(1, 11))
    assert (np.abs(counts - 2000) < 5 * np.sqrt(2000)).all()
    t = sample_times(jax.random.key(0), 1000, schedules.continuous_cosine())
    assert float(t.min()) > 0 and float(t.max()) <= 1 and abs(float(t.mean()) - 0.5) < 0.05
