"""Distances of paired features and diversity within sets."""

import numpy as np
import pytest
from scipy.spatial.distance import pdist

from jaxgen.errors import UserError
from jaxgen.metrics.distributions.diversity import class_diversity, diversity
from jaxgen.metrics.pairs.features import l1_distance, l2_distance

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 5))


def test_pairs():
    a, b = np.array([[0.0, 0, 0], [1, 1, 1]]), np.array([[3.0, -4, 0], [1, 1, 1]])
    np.testing.assert_allclose(l1_distance(a, b), [7, 0])
    np.testing.assert_allclose(l2_distance(a, b), [5, 0])
    # small differences of large float32 features are taken in float64
    far = np.full((1, 4), 1e4, np.float32)
    assert l2_distance(far, far + np.float32(0.5))[0] == pytest.approx(1)


@pytest.mark.parametrize("block", [7, 64])
def test_diversity_is_the_mean_over_pairs(block):
    assert diversity(X, block) == pytest.approx(pdist(X).mean(), rel=1e-12)
    assert diversity(X[::-1], block) == pytest.approx(diversity(X), rel=1e-12)


def test_copies_have_none_and_a_wider_law_has_more():
    assert diversity(np.repeat(X[:1] + 1e4, 30, axis=0)) == 0
    # E |x - y| of N(0, s^2) in one dimension is 2 s / sqrt(pi)
    wide = RNG.normal(0, 3, size=(3000, 1))
    assert diversity(wide) == pytest.approx(6 / np.sqrt(np.pi), rel=0.05)


def test_diversity_by_class_sees_a_collapse_that_the_whole_set_hides():
    labels = np.repeat([4, 7, 9], 20)
    collapsed = X.copy()
    collapsed[labels == 7] = X[25]
    found = class_diversity(collapsed, labels)
    assert list(found) == [4, 7, 9] and found[7] == 0
    assert found[4] == pytest.approx(pdist(X[:20]).mean())
    assert diversity(collapsed) > 0.8 * diversity(X)
    assert set(class_diversity(X[:21], labels[:21])) == {4}  # the one example of class 7 has no pair


def test_bad_features_are_refused():
    for distance in (l1_distance, l2_distance):
        with pytest.raises(UserError, match="pairs"):
            distance(X, X[:5])
        with pytest.raises(UserError, match="equal D"):
            distance(X, X[:, :2])
    with pytest.raises(UserError, match="two examples"):
        diversity(X[:1])
    with pytest.raises(UserError, match="finite"):
        diversity(X * np.inf)
    with pytest.raises(UserError, match="at least two"):
        class_diversity(X[:2], np.array([0, 1]))
    with pytest.raises(UserError, match="one label per example"):
        class_diversity(X, np.zeros(3, int))
