"""Gaussians, likelihoods and bounds against closed forms: a linear-Gaussian model whose log p(x) is known."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import multivariate_normal

from jaxgen.errors import UserError
from jaxgen.variational import likelihood
from jaxgen.variational.bounds import elbo, free_bits, importance_bound
from jaxgen.variational.gaussian import Gaussian, standard_log_prob

LATENTS, PIXELS, NOISE = 3, 6, 0.7


@pytest.fixture(scope="module")
def linear():
    """x = W z + NOISE e: images, their exact log p(x), W, and the exact posterior's mean and covariance."""
    chance = np.random.default_rng(0)
    weights = np.linalg.qr(chance.normal(size=(PIXELS, LATENTS)))[0] * [1.5, 1.0, 0.4]  # a diagonal posterior
    x = chance.normal(size=(5, LATENTS)) @ weights.T + NOISE * chance.normal(size=(5, PIXELS))
    exact = multivariate_normal(np.zeros(PIXELS), weights @ weights.T + NOISE**2 * np.eye(PIXELS)).logpdf(x)
    covariance = np.linalg.inv(np.eye(LATENTS) + weights.T @ weights / NOISE**2)
    assert np.abs(covariance - np.diag(np.diag(covariance))).max() < 1e-12
    mean = x @ weights @ covariance / NOISE**2
    variance = np.tile(np.diag(covariance), (5, 1))
    posterior = Gaussian(jnp.asarray(mean, jnp.float32), jnp.log(jnp.asarray(variance, jnp.float32)))
    return x, exact, weights, posterior


def log_weights(linear, posterior, count, seed=0):
    x, _, weights, _ = linear
    z = posterior.at(jax.random.normal(jax.random.key(seed), (count, 5, LATENTS)))
    found = jax.vmap(lambda z: likelihood.Gaussian(NOISE).log_prob(x.astype(np.float32), z @ weights.T))(z)
    return found, found + standard_log_prob(z) - posterior.log_prob(z)


def test_with_the_exact_posterior_each_bound_is_log_p(linear):
    _, exact, _, posterior = linear
    found, weights = log_weights(linear, posterior, 20_000)
    np.testing.assert_allclose(weights[:50], np.tile(exact, (50, 1)), atol=2e-4)  # every single sample
    np.testing.assert_allclose(importance_bound(weights[:7]), exact, atol=2e-4)
    np.testing.assert_allclose(elbo(found.mean(axis=0), posterior.kl()), exact, atol=0.05)


@pytest.mark.slow
def test_another_posterior_costs_its_divergence_and_importance_weights_win_it_back(linear):
    _, exact, _, posterior = linear
    wrong = posterior.replace(mean=posterior.mean + 0.3, log_variance=posterior.log_variance + 0.5)
    gap = (np.exp(0.5) + 0.09 / np.exp(posterior.log_variance) - 1 - 0.5).sum(axis=1) / 2  # KL(wrong || posterior)
    found, weights = log_weights(linear, wrong, 50_000)
    np.testing.assert_allclose(elbo(found.mean(axis=0), wrong.kl()), exact - gap, atol=0.05)
    np.testing.assert_allclose(weights.mean(axis=0), exact - gap, atol=0.05)
    bounds = [float(jax.vmap(importance_bound)(weights.reshape(-1, k, 5)).mean()) for k in (1, 5, 50, 5000)]
    assert bounds == sorted(bounds) and abs(bounds[-1] - exact.mean()) < 0.01


def test_kl_against_monte_carlo():
    q = Gaussian(jnp.array([[0.5, -1.0]]), jnp.array([[-0.7, 0.4]]))
    z = q.at(jax.random.normal(jax.random.key(1), (400_000, 2)))
    sampled = (q.log_prob(z) - standard_log_prob(z)).mean()
    assert abs(float(q.kl().sum() - sampled)) < 0.01


def test_the_gradient_through_a_sample_is_the_analytic_one():
    """E[z**2 + 3 z] of N(m, s**2) is m**2 + s**2 + 3 m."""

    def expected(outputs):
        z = Gaussian.of(outputs).at(jax.random.normal(jax.random.key(2), (400_000, 1)))
        return (z**2 + 3 * z).mean()

    mean, log_variance = 0.8, -0.5
    found = jax.grad(expected)(jnp.array([mean, log_variance]))
    np.testing.assert_allclose(found, [2 * mean + 3, np.exp(log_variance)], atol=0.02)


def test_extreme_log_variances_stay_finite():
    q = Gaussian.of(jnp.array([[0.0, 0.0, 1e6, -1e6]]))
    assert np.isfinite(q.kl()).all() and np.isfinite(q.at(jnp.ones(2))).all()


def test_bernoulli_sums_over_all_values():
    images = 2.0 * jax.random.bernoulli(jax.random.key(0), 0.3, (4, 5, 5, 2)) - 1
    probability = jax.random.uniform(jax.random.key(1), images.shape, minval=0.05, maxval=0.95)
    logits = jnp.log(probability) - jnp.log1p(-probability)
    found = likelihood.Bernoulli().log_prob(images, logits)
    wanted = np.log(np.where(images > 0, probability, 1 - probability)).sum(axis=(1, 2, 3))
    np.testing.assert_allclose(found, wanted, rtol=1e-5)
    sure = likelihood.Bernoulli().log_prob(images, 1e4 * images)
    np.testing.assert_allclose(sure, 0.0, atol=1e-6)
    np.testing.assert_allclose(likelihood.Bernoulli().mean(logits), 2 * probability - 1, atol=1e-5)


def test_drawn_images_are_black_and_white_with_the_images_mean():
    image = jnp.full((2000, 3, 3, 1), -0.5)
    drawn = likelihood.Bernoulli().prepare(image, jax.random.key(0))
    assert set(np.unique(drawn)) == {-1.0, 1.0}
    assert abs(float(drawn.mean()) + 0.5) < 0.03
    np.testing.assert_array_equal(likelihood.Bernoulli(draw=False).prepare(image, jax.random.key(0)), image)


def test_the_best_gaussian_is_best():
    images, outputs = (jax.random.normal(jax.random.key(i), (8, 4, 4, 1)) * 0.3 for i in range(2))
    best = float(likelihood.OptimalGaussian().log_prob(images, outputs).mean())
    others = [float(likelihood.Gaussian(std).log_prob(images, outputs).mean()) for std in np.linspace(0.2, 1.0, 81)]
    assert max(others) <= best + 1e-3 and max(others) > best - 1e-2


def test_free_bits_charge_at_least_so_much_a_latent():
    kl = jnp.array([[0.0, 2.0], [0.2, 4.0]])
    np.testing.assert_allclose(free_bits(kl, 0.5), [0.5, 3.0])
    slope = jax.grad(lambda kl: free_bits(kl, 0.5).sum())(kl)
    np.testing.assert_allclose(slope, [[0.0, 0.5], [0.0, 0.5]])


@pytest.mark.parametrize("std", [0.0, -1.0])
def test_a_standard_deviation_is_positive(std):
    with pytest.raises(UserError, match="above 0"):
        likelihood.Gaussian(std)
