"""The Fréchet distance against closed forms."""

import numpy as np
import pytest
import scipy.linalg

from jaxgen.errors import UserError
from jaxgen.metrics.frechet import frechet_distance


def _exactly(mean, covariance, n=400, seed=0):
    """A sample whose mean and unbiased covariance are exactly those asked for."""
    x = np.random.default_rng(seed).normal(size=(n, len(mean)))
    x -= x.mean(0)
    x = x @ np.linalg.inv(np.linalg.cholesky(np.cov(x.T)).T)
    return x @ np.linalg.cholesky(covariance).T + mean


def test_commuting_covariances_have_a_closed_form():
    """|mu|**2 plus the squared differences of the standard deviations along shared axes."""
    a = _exactly(np.zeros(3), np.diag([1.0, 4.0, 9.0]))
    b = _exactly(np.array([1.0, 0.0, -2.0]), np.diag([4.0, 4.0, 0.25]), seed=1)
    assert frechet_distance(a, b) == pytest.approx(5 + 1 + 0 + 2.5**2, rel=1e-9)


def test_general_covariances_against_the_matrix_square_root():
    rng = np.random.default_rng(0)
    m, k = (np.cov(rng.normal(size=(50, 6)).T) for _ in range(2))
    a, b = _exactly(np.zeros(6), m), _exactly(np.ones(6), k, seed=1)
    root = scipy.linalg.sqrtm(m @ k).real
    assert frechet_distance(a, b) == pytest.approx(6 + np.trace(m + k - 2 * root), rel=1e-8)


def test_a_set_is_at_distance_zero_of_itself_and_order_does_not_matter():
    x = np.random.default_rng(0).normal(size=(100, 8))
    y = x + np.random.default_rng(1).normal(size=x.shape)
    assert frechet_distance(x, x[::-1]) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(x, y) == pytest.approx(frechet_distance(y, x), rel=1e-9)
    assert frechet_distance(x, y) > 0.1


def test_constant_features_do_not_break_it():
    x = np.random.default_rng(0).normal(size=(50, 4))
    x[:, 2] = 0
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-9)


def test_its_bias_falls_with_n():
    """On equal Gaussians of width d it reads about d**2 / (2 n)."""
    rng = np.random.default_rng(0)
    small, large = (frechet_distance(*(rng.normal(size=(n, 16)) for _ in range(2))) for n in (200, 3200))
    assert 8 < small / large < 32


@pytest.mark.parametrize(
    "a,b,match",
    [
        (np.zeros((3, 2)), np.zeros((3, 4)), "equal D"),
        (np.zeros((1, 2)), np.zeros((3, 2)), "two examples"),
        (np.full((3, 2), np.nan), np.zeros((3, 2)), "finite"),
    ],
)
def test_bad_features_are_refused(a, b, match):
    with pytest.raises(UserError, match=match):
        frechet_distance(a, b)
