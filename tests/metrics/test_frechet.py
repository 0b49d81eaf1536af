"""The Fréchet distance against closed forms."""

import numpy as np
import pytest
import scipy.linalg

from jaxgen.errors import UserError
from jaxgen.metrics.distributions.frechet import frechet_distance, frechet_from_moments
from jaxgen.metrics.moments import Moments


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


def _symmetric(values, seed):
    turn, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(len(values), len(values))))
    return (turn * values) @ turn.T


@pytest.mark.parametrize("smallest", [1.0, 1e-6, 1e-12])
def test_a_linear_map_has_a_closed_form_however_badly_conditioned(smallest):
    """x -> T x with T symmetric and positive is the optimal transport: the distance is Tr (T - 1) S (T - 1)."""
    covariance, linear = _symmetric(np.geomspace(10, smallest, 80), 0), _symmetric(np.geomspace(2, 0.5, 80), 1)
    moved = Moments(11, np.full(80, 0.5), 10 * linear @ covariance @ linear)
    change = linear - np.eye(80)
    expected = 80 * 0.25 + np.trace(change @ covariance @ change)
    still = Moments(11, np.zeros(80), 10 * covariance)
    # two counts, so that either side takes the place of the factor
    for count in (11, 1001):
        other = Moments(count, still.mean, still.scatter * (count - 1) / 10)
        assert frechet_from_moments(moved, other) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("ours,theirs", [(10, 12), (10, 200), (200, 12)])
def test_fewer_examples_than_features_against_the_singular_values_of_the_data(ours, theirs):
    """Tr (S_a S_b)**(1/2) is the nuclear norm of the centred X_a X_b^T, whatever the ranks."""
    chance = np.random.default_rng(0)
    a, b = chance.normal(size=(ours, 40)) * np.geomspace(1, 1e-3, 40), chance.normal(0.1, 1, size=(theirs, 40))
    x, y = (z - z.mean(0) for z in (a, b))
    root = np.linalg.svd(x @ y.T / np.sqrt((ours - 1) * (theirs - 1)), compute_uv=False).sum()
    spread = (x**2).sum() / (ours - 1) + (y**2).sum() / (theirs - 1)
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum() + spread - 2 * root
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-10)


def test_a_set_of_few_examples_is_at_distance_zero_of_itself():
    x = np.random.default_rng(0).normal(size=(30, 200))
    assert frechet_distance(x, x[::-1]) == pytest.approx(0, abs=1e-9)


def test_moments_are_those_of_numpy_in_any_batches_and_order():
    x = np.random.default_rng(0).normal(50, 2, size=(331, 6)).astype(np.float32)
    whole = Moments.of(x)
    np.testing.assert_allclose(whole.mean, x.mean(0, dtype=np.float64), rtol=1e-12)
    np.testing.assert_allclose(whole.covariance, np.cov(x.T.astype(np.float64)), rtol=1e-9, atol=1e-9)
    mixed = np.random.default_rng(1).permutation(x)
    for batch in (1, 7, 100):
        parts = [Moments.of(mixed[i : i + batch]) for i in range(0, len(x), batch)]
        grown = parts[0]
        for i in range(batch, len(x), batch):
            grown = grown.add(mixed[i : i + batch])
        while len(parts) > 1:  # as a tree, from the end
            parts.append(parts.pop().merge(parts.pop(0)))
        for found in (grown, parts[0]):
            assert found.count == whole.count
            np.testing.assert_allclose(found.mean, whole.mean, rtol=1e-12)
            np.testing.assert_allclose(found.covariance, whole.covariance, rtol=1e-9, atol=1e-9)


def test_the_distance_of_moments_is_that_of_the_features_and_does_not_change_with_batches():
    rng = np.random.default_rng(0)
    a, b = rng.normal(30, 1, size=(500, 12)), rng.normal(30.2, 2, size=(300, 12))
    batches = Moments.of(a[400:]).add(a[:150]).add(a[150:400])
    assert frechet_from_moments(batches, Moments.of(b)) == pytest.approx(frechet_distance(a, b), rel=1e-9)


def test_more_rows_than_a_block_are_the_same_features(monkeypatch):
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(90, 4)), rng.normal(size=(50, 4))
    expected = frechet_distance(a, b)
    monkeypatch.setattr("jaxgen.metrics.moments.BLOCK", 16)
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-10)


def test_moments_that_do_not_fit_are_refused():
    two, three = Moments.of(np.eye(2)), Moments.of(np.eye(3))
    for call, words in (
        (lambda: two.merge(three), "merged"),
        (lambda: two.add(np.zeros((4, 3))), "merged"),
        (lambda: frechet_from_moments(two, three), "equally many"),
        (lambda: frechet_from_moments(two, Moments.of(np.ones((1, 2)))), "two examples"),
        (lambda: Moments.of(np.zeros((0, 2))), "at least one row"),
        (lambda: two.add(np.full((1, 2), np.inf)), "finite"),
    ):
        with pytest.raises(UserError, match=words):
            call()


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
