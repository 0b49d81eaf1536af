"""InfoGAN's codes: their law, their encoding, the likelihoods and the bound on the information."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxgen.adversarial.mutual_information import Codes, categorical_cross_entropy, gaussian_nll
from jaxgen.errors import UserError

CODES = Codes(categorical=(10, 3), continuous=2)


def drawn(codes, count, seed=0):
    return codes.sample(jax.random.split(jax.random.key(seed), count))


def test_cross_entropy_takes_logits():
    logits = jnp.array([[1.0, 2.0, 3.0], [0.0, 0.0, 0.0], [100.0, -100.0, 0.0]])
    got = categorical_cross_entropy(logits, jnp.array([2, 0, 1]))
    first = np.log(1 + np.exp(-1.0) + np.exp(-2.0))
    np.testing.assert_allclose(got, [first, np.log(3), 200], rtol=1e-6)
    # a softmax before the cross-entropy would bound the loss by log(e + K - 1) and leave little slope
    slope = jax.grad(lambda x: categorical_cross_entropy(x, jnp.array([1])).sum())(logits[2:])
    np.testing.assert_allclose(slope, [[1, -1, 0]], atol=1e-6)


def test_gaussian_likelihood_is_scipy_s():
    chance = np.random.default_rng(0)
    mean, log_std, values = chance.normal(size=(3, 5, 4))
    expected = -stats.norm.logpdf(values, mean, np.exp(log_std)).sum(axis=1)
    np.testing.assert_allclose(gaussian_nll(mean, log_std, values), expected, rtol=1e-5)
    fixed = -stats.norm.logpdf(values, mean, 0.5).sum(axis=1)
    np.testing.assert_allclose(gaussian_nll(mean, float(np.log(0.5)), values), fixed, rtol=1e-5)


def test_codes_follow_their_law():
    codes = drawn(CODES, 6000)
    assert codes["categorical"].shape == (6000, 2) and codes["categorical"].dtype == jnp.int32
    for i, classes in enumerate(CODES.categorical):
        counts = np.bincount(codes["categorical"][:, i], minlength=classes)
        assert len(counts) == classes and stats.chisquare(counts).pvalue > 1e-4
    for i in range(2):
        assert stats.kstest(codes["continuous"][:, i], stats.uniform(-1, 2).cdf).pvalue > 1e-4
    columns = np.concatenate([codes["categorical"], codes["continuous"]], axis=1)
    correlation = np.corrcoef(columns.T) - np.eye(4)
    assert np.abs(correlation).max() < 5 / np.sqrt(6000)


def test_an_image_s_codes_depend_on_its_key_alone():
    few, many = drawn(CODES, 4), CODES.sample(jax.random.split(jax.random.key(0), 4)[jnp.array([3, 1])])
    for name in few:
        np.testing.assert_array_equal(few[name][jnp.array([3, 1])], many[name])


def test_encoding_can_be_read_back():
    codes = drawn(CODES, 50)
    encoded = np.asarray(CODES.encode(codes))
    assert encoded.shape == (50, CODES.width) == (50, 15)
    np.testing.assert_array_equal(encoded[:, :10].argmax(1), codes["categorical"][:, 0])
    np.testing.assert_array_equal(encoded[:, 10:13].argmax(1), codes["categorical"][:, 1])
    assert set(np.unique(encoded[:, :13])) == {0, 1}
    np.testing.assert_array_equal(encoded[:, 13:], codes["continuous"])


def test_one_kind_of_codes_alone():
    only = Codes(categorical=(), continuous=3)
    assert only.encode(drawn(only, 4)).shape == (4, 3) and only.head_width == 3
    only = Codes(categorical=(4,), continuous=0)
    assert only.encode(drawn(only, 4)).shape == (4, 4) and only.head_width == 4
    assert only.bound(jnp.zeros((4, 4)), drawn(only, 4)).shape == (4,)


@pytest.mark.parametrize("std", [0.3, None])
def test_the_bound_is_the_information_that_the_head_has(std):
    codes = Codes(categorical=(10, 3), continuous=2, std=std)
    assert codes.head_width == 15 + (2 if std is None else 0)
    assert codes.entropy == pytest.approx(np.log(10) + np.log(3) + 2 * np.log(2))
    sampled = drawn(codes, 4000)
    hot, values = 50 * codes.encode(sampled)[:, :13], codes.encode(sampled)[:, 13:]
    log_std = [] if std else [jnp.full((4000, 2), np.log(0.3))]
    noise = 0.3 * jax.random.normal(jax.random.key(1), values.shape)

    # a head that knows the classes for certain, and each value up to a Gaussian of 0.3
    knows = codes.bound(jnp.concatenate([hot, values + noise, *log_std], axis=1), sampled)
    gaussian = np.log(0.3 * np.sqrt(2 * np.pi * np.e))  # entropy of a continuous code given the image
    assert float(knows.mean()) == pytest.approx(np.log(30) + 2 * (np.log(2) - gaussian), abs=0.05)

    # a head that looks at another image's codes: no information, and a bound that says so
    shuffled = codes.bound(jnp.concatenate([jnp.zeros_like(hot), jnp.roll(values, 1, 0), *log_std], axis=1), sampled)
    assert float(shuffled.mean()) < 0
    # and one that gives the classes' own law tells nothing of them
    parts = codes.negative_log_likelihoods(jnp.zeros((4000, codes.head_width)), sampled)
    np.testing.assert_allclose(parts["categorical"], np.log(30), rtol=1e-5)


def test_each_image_has_its_own_likelihood():
    outputs = jax.random.normal(jax.random.key(2), (5, CODES.head_width))
    sampled = drawn(CODES, 5)
    before = CODES.bound(outputs, sampled)
    after = CODES.bound(outputs.at[3].add(1.0), sampled)
    np.testing.assert_array_equal(np.flatnonzero(before != after), [3])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(categorical=(), continuous=0), "needs codes"),
        (dict(categorical=(1,)), "two or more classes"),
        (dict(std=0.0), "standard deviation"),
    ],
)
def test_bad_codes_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        Codes(**options)


def test_a_head_of_another_width_is_refused():
    with pytest.raises(UserError, match="must give 15 numbers"):
        CODES.bound(jnp.zeros((2, 17)), drawn(CODES, 2))
