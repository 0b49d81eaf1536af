"""The Inception score at its ends, in closed form, and what it refuses."""

import numpy as np
import pytest

from jaxgen.errors import UserError
from jaxgen.metrics.distributions.inception_score import inception_score

RNG = np.random.default_rng(0)


def test_every_class_equally_often_and_surely_is_the_maximum():
    score = inception_score(np.tile(np.eye(7), (40, 1)), splits=4, seed=None)
    assert score.mean == pytest.approx(7, rel=1e-12) and score.std == pytest.approx(0, abs=1e-12)


def test_predictions_that_do_not_vary_are_the_minimum():
    assert inception_score(np.tile(RNG.dirichlet(np.ones(5)), (50, 1))).mean == pytest.approx(1, abs=1e-12)
    # one class only: sure, but not diverse
    assert inception_score(np.tile(np.eye(5)[2], (50, 1))).mean == pytest.approx(1, abs=1e-12)


def test_the_logarithm_is_the_mutual_information_of_class_and_sample():
    """H(y) - H(y | x) of a binary symmetric channel: log 2 minus the entropy of its error rate."""
    error = 0.1
    rows = np.array([[1 - error, error], [error, 1 - error]])
    entropy = -(error * np.log(error) + (1 - error) * np.log(1 - error))
    score = inception_score(np.tile(rows, (30, 1)), splits=1)
    assert np.log(score.mean) == pytest.approx(np.log(2) - entropy, rel=1e-12)


def test_one_part_does_not_depend_on_the_order_and_parts_on_the_seed_alone():
    rows = RNG.dirichlet(np.full(6, 0.3), 211)
    assert inception_score(rows, splits=1).mean == pytest.approx(inception_score(rows[::-1], splits=1).mean, rel=1e-12)
    assert inception_score(rows, seed=1) == inception_score(rows, seed=1) != inception_score(rows, seed=2)


def test_samples_sorted_by_class_are_dealt_to_all_parts():
    rows = np.repeat(np.eye(10), 100, axis=0)
    assert inception_score(rows).mean > 9.5
    assert inception_score(rows, seed=None).mean == pytest.approx(1)


@pytest.mark.parametrize(
    "rows,options,words",
    [
        (np.zeros(3), {}, "K"),
        (np.ones((20, 4)), {}, "sum 1"),
        (np.tile([1.5, -0.5], (20, 1)), {}, "below 0"),
        (np.full((5, 2), 0.5), {}, "fewer parts"),
        (np.full((5, 2), np.nan), {"splits": 1}, "below 0"),
    ],
)
def test_bad_probabilities_are_refused(rows, options, words):
    with pytest.raises(UserError, match=words):
        inception_score(rows, **options)
