"""Bayes' rule on mixtures whose classes and densities are known in closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from exact import make_keys

from jaxgen.diffusion import schedules
from jaxgen.diffusion.prediction import Prediction
from jaxgen.diffusion.prediction_types import Epsilon
from jaxgen.diffusion.samplers.ddim import DDIM
from jaxgen.editing.bayes import class_log_likelihoods, class_log_probabilities, given_label, sample_given_label
from jaxgen.editing.model import DiffusionModel
from jaxgen.errors import UserError

SMOOTH = schedules.ContinuousCosine()
MEANS = jnp.array([[0.5, 0.3], [-0.4, 0.1], [0.1, -0.5]])
STDS = jnp.array([0.3, 0.35, 0.25])


def noisy(schedule, t, x):
    """alpha, sigma and the variances of the classes' x_t: `[B, 1]`, `[B, 1]`, `[B, 3]`."""
    t = jnp.broadcast_to(jnp.asarray(t, x.dtype), x.shape[:1])
    alpha, sigma = schedule.alpha(t)[:, None], schedule.sigma(t)[:, None]
    return t, alpha, sigma, (alpha * STDS) ** 2 + sigma**2


def conditional(schedule):
    def denoise(x, t, label):
        t, alpha, sigma, variance = noisy(schedule, t, x)
        variance = jnp.take_along_axis(variance, label[:, None], axis=1)
        return Prediction(sigma * (x - alpha * MEANS[label]) / variance, x, t, schedule, Epsilon())

    return denoise


def log_densities(x, alpha=1.0, variance=STDS**2):
    """`[B, 3]` of each class."""
    off = x[:, None] - (alpha * jnp.ones((1, 1)))[..., None] * MEANS
    return -0.5 * (off**2).sum(-1) / variance - jnp.log(variance)


def classifier(schedule):
    def logits(x, t):
        _, alpha, _, variance = noisy(schedule, t, x)
        return log_densities(x, alpha, variance)

    return logits


def unconditional(schedule):
    def denoise(x, t):
        t, alpha, sigma, variance = noisy(schedule, t, x)
        share = jax.nn.softmax(log_densities(x, alpha, variance))[..., None]
        each = (x[:, None] - alpha[..., None] * MEANS) / variance[..., None]
        return Prediction(sigma * (share * each).sum(1), x, t, schedule, Epsilon())

    return denoise


POINTS = jax.random.uniform(jax.random.key(0), (32, 2), minval=-1, maxval=1)


@pytest.mark.parametrize("schedule", [SMOOTH, schedules.Cosine(), schedules.EDM()])
def test_the_diffusion_classifier_is_bayes_rule(schedule):
    """With the exact conditional denoiser, the exact posterior of the classes, prior included."""
    log_prior = jnp.log(jnp.array([0.6, 0.1, 0.3]))
    run = jax.jit(lambda x, k: class_log_probabilities(conditional(schedule), schedule, x, k, 3, 2000, log_prior))
    found = jnp.exp(run(POINTS, make_keys(32)))
    truth = jax.nn.softmax(log_densities(POINTS) + log_prior)
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-5)
    assert float(jnp.abs(found - truth).mean()) < 0.02 and float(jnp.abs(found - truth).max()) < 0.12
    # the prior's part of it is seen
    assert float(jnp.abs(truth - jax.nn.softmax(log_densities(POINTS))).mean()) > 0.05


def test_li_et_al_s_order_of_classes_agrees_where_the_classes_are_clear():
    x = jnp.repeat(MEANS, 5, axis=0) + 0.05 * jax.random.normal(jax.random.key(1), (15, 2))
    for schedule in (SMOOTH, schedules.Linear(steps=50)):
        denoise = conditional(schedule)
        scores = class_log_likelihoods(denoise, schedule, x, make_keys(15), 3, draws=200, weighting="uniform")
        np.testing.assert_array_equal(scores.argmax(axis=1), np.repeat([0, 1, 2], 5))


def test_classes_are_compared_on_the_same_noise():
    """Classes that are the same get the same number to the bit, however few the draws."""

    def denoise(x, t, label):
        return conditional(SMOOTH)(x, t, label % 2)

    found = class_log_likelihoods(denoise, SMOOTH, POINTS, make_keys(32), 4, draws=2)
    np.testing.assert_allclose(found[:, :2], found[:, 2:], rtol=1e-6)
    assert (found[:, 0] != found[:, 1]).all()


def test_an_image_s_classes_depend_on_its_key_alone():
    def run(x, keys):
        return class_log_likelihoods(conditional(SMOOTH), SMOOTH, x, keys, 3, draws=4)

    np.testing.assert_allclose(run(POINTS, make_keys(32))[3:7], run(POINTS[3:7], make_keys(32)[3:7]), rtol=1e-4)


@pytest.mark.parametrize("t", [0.05, 0.4, 0.9])
def test_a_classifier_makes_the_conditional_model_of_the_unconditional_one(t):
    label = jnp.arange(32) % 3
    given = given_label(unconditional(SMOOTH), classifier(SMOOTH), label)
    ours, theirs = given(POINTS, t).epsilon, conditional(SMOOTH)(POINTS, t, label).epsilon
    np.testing.assert_allclose(ours, theirs, atol=2e-4)
    without = given_label(unconditional(SMOOTH), classifier(SMOOTH), label, scale=0.0)(POINTS, t).epsilon
    assert float(jnp.abs(without - theirs).max()) > 0.05


def test_draws_of_p_of_x_given_y_are_the_class_s():
    label = jnp.repeat(jnp.arange(3), 3000)
    model = DiffusionModel(unconditional(SMOOTH), SMOOTH, DDIM(100, clip=False))
    run = jax.jit(lambda label, keys: sample_given_label(model, classifier(SMOOTH), label, keys, (2,)))
    x = np.asarray(run(label, make_keys(9000))).reshape(3, 3000, 2)
    np.testing.assert_allclose(x.mean(axis=1), MEANS, atol=0.03)
    np.testing.assert_allclose(x.std(axis=1), np.repeat(STDS[:, None], 2, axis=1), atol=0.02)


def test_bad_arguments_are_refused():
    denoise = conditional(SMOOTH)
    for classes, draws in ((1, 4), (3, 0)):
        with pytest.raises(UserError, match="two classes"):
            class_log_likelihoods(denoise, SMOOTH, POINTS, make_keys(32), classes, draws)
    with pytest.raises(UserError, match="snr"):
        class_log_likelihoods(denoise, SMOOTH, POINTS, make_keys(32), 3, weighting="snr")
