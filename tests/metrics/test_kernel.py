"""The kernel distance: unbiased, against loops, and what it refuses."""

import itertools

import numpy as np
import pytest
from sklearn.metrics.pairwise import polynomial_kernel

from jaxgen.errors import UserError
from jaxgen.metrics.distributions.frechet import frechet_distance
from jaxgen.metrics.distributions.kernel import kid, mmd2


def test_against_a_loop_over_pairs():
    """sklearn's polynomial kernel, its own code; every ordered pair of different examples."""
    chance = np.random.default_rng(0)
    a, b = chance.normal(size=(9, 5)), chance.normal(0.4, 1.3, size=(7, 5))

    def kernel(x, y):
        return float(polynomial_kernel(x[None], y[None], degree=3, gamma=1 / 5, coef0=1)[0, 0])

    within = [np.mean([kernel(x, y) for x, y in itertools.permutations(s, 2)]) for s in (a, b)]
    between = np.mean([kernel(x, y) for x, y in itertools.product(a, b)])
    np.testing.assert_allclose(mmd2(a, b), sum(within) - 2 * between, rtol=1e-12)
    assert kid(a, b, subsets=40, subset_size=7).std > 0


def test_no_bias_where_the_frechet_distance_has_much():
    """Two draws of one law, 200 examples of 64 features: METHODS' 10.8 against an estimate around 0."""
    chance = np.random.default_rng(1)
    kernels, frechets = [], []
    for _ in range(30):
        a, b = chance.normal(size=(2, 200, 64))
        kernels.append(kid(a, b, subsets=5).mean)
        frechets.append(frechet_distance(a, b))
    error = np.std(kernels) / np.sqrt(len(kernels))
    assert abs(np.mean(kernels)) < 3 * error
    assert min(kernels) < 0 < max(kernels)
    assert np.mean(frechets) > 100 * np.std(frechets) / np.sqrt(len(frechets))


@pytest.mark.parametrize("count", [100, 1000, 10_000])
def test_no_bias_at_any_number_of_examples(count):
    """Fresh draws of one law: the mean lies within its own standard error of 0."""
    chance = np.random.default_rng(count)
    values = [kid(*chance.normal(0.5, 1, size=(2, count, 16)), subsets=1).mean for _ in range(16)]
    assert abs(np.mean(values)) < 3 * np.std(values) / np.sqrt(len(values))


def test_the_population_value_of_two_gaussians():
    """N(0, I) and N(m, I) in D dimensions: E (x y / D + 1)**3 in closed form from the moments of x y."""
    width, count = 8, 20_000
    mean = np.full(width, 0.5)

    def expected(p, q):
        # s = x y with x ~ N(p, I), y ~ N(q, I): mean p q; variance |p|^2 + |q|^2 + D; third central moment 6 p q
        inner, spread = p @ q / width, (p @ p + q @ q + width) / width**2
        return (1 + inner) ** 3 + 3 * (1 + inner) * spread + 6 * (p @ q) / width**3

    zero = np.zeros(width)
    exact = expected(zero, zero) + expected(mean, mean) - 2 * expected(zero, mean)
    chance = np.random.default_rng(2)
    a, b = chance.normal(size=(count, width)), chance.normal(size=(count, width)) + mean
    estimate = kid(a, b, subsets=20)
    assert abs(estimate.mean - exact) < 4 * estimate.std / np.sqrt(20)  # about disjoint subsets
    assert exact > 0.5


def test_the_standard_deviation_is_that_of_fresh_subsets():
    chance = np.random.default_rng(3)
    a, b = chance.normal(size=(2, 4000, 16)) * [[[1.0]], [[1.2]]]
    fresh = [mmd2(chance.normal(size=(50, 16)), 1.2 * chance.normal(size=(50, 16))) for _ in range(400)]
    assert kid(a, b, subsets=400, subset_size=50).std == pytest.approx(np.std(fresh), rel=0.2)


def test_float32_features_are_summed_in_float64():
    chance = np.random.default_rng(4)
    a, b = (chance.normal(200, 1, (300, 4)).astype(np.float32) for _ in range(2))
    assert mmd2(a, b) == mmd2(a.astype(np.float64), b.astype(np.float64))


@pytest.mark.parametrize(
    "case",
    [
        (np.zeros((5, 3)), np.zeros((5, 4)), {}, "equal D"),
        (np.zeros((1, 3)), np.zeros((5, 3)), {}, "at least 2"),
        (np.zeros((5, 3)), np.zeros((9, 3)), {"subset_size": 6}, "at most the smaller"),
        (np.full((5, 3), np.nan), np.zeros((5, 3)), {}, "finite"),
        (np.zeros((5, 3)), np.zeros((5, 3)), {"subsets": 0}, "one subset"),
    ],
)
def test_bad_input_is_refused(case):
    a, b, options, words = case
    with pytest.raises(UserError, match=words):
        kid(a, b, **options)
