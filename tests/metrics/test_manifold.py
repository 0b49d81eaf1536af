"""Precision, recall, density, coverage and realism: planted faults, laws that are known, ties, and blocks."""

import numpy as np
import pytest

from jaxgen.errors import UserError
from jaxgen.metrics.distributions.manifold import density_coverage, precision_recall, realism

RNG = np.random.default_rng(0)
MODES = 8.0 * np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]])


def _draw(modes, count, seed):
    chance = np.random.default_rng(seed)
    return MODES[chance.choice(modes, count)] + chance.normal(size=(count, 3))


def _loops(samples, reference, k):
    """All five numbers from their definitions, pair by pair."""

    def radii(x):
        return [sorted(np.linalg.norm(x[i] - x[j]) for j in range(len(x)) if j != i)[k - 1] for i in range(len(x))]

    real, fake = radii(reference), radii(samples)
    apart = np.array([[np.linalg.norm(s - r) for r in reference] for s in samples])
    inside = apart <= np.array(real)
    keep = np.array(real) <= np.median(real)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = np.array(real)[keep] / apart[:, keep]
    return (
        inside.any(axis=1).mean(),
        (apart.T <= np.array(fake)).any(axis=1).mean(),
        inside.sum() / (k * len(samples)),
        inside.any(axis=0).mean(),
        ratios.max(axis=1),
    )


@pytest.mark.parametrize("k,block", [(1, 6), (3, 17), (5, 500)])
def test_against_the_definitions(k, block):
    samples, reference = RNG.normal(0.5, 1.2, size=(40, 4)), RNG.normal(size=(51, 4))
    precision, recall, density, coverage, scores = _loops(samples, reference, k)
    assert precision_recall(samples, reference, k, block) == pytest.approx((precision, recall))
    assert density_coverage(samples, reference, k, block) == pytest.approx((density, coverage))
    np.testing.assert_allclose(realism(samples, reference, k, block), scores, rtol=1e-10)


@pytest.mark.parametrize("k", [1, 4])
def test_a_ball_holds_its_border(k):
    """Copies of the reference lie exactly as far from a centre as its neighbours do."""
    chance = np.random.default_rng(7)
    grid = chance.integers(0, 3, size=(40, 3)).astype(np.float64)
    cloud = chance.normal(5, 1, size=(40, 24))
    for reference in (grid, cloud):
        samples = reference[chance.choice(40, 30)]
        precision, recall, density, coverage, _ = _loops(samples, reference, k)
        for block in (7, 64):
            assert precision_recall(samples, reference, k, block) == pytest.approx((precision, recall))
            assert density_coverage(samples, reference, k, block) == pytest.approx((density, coverage))


def test_dropped_modes_lower_recall_and_leave_precision():
    real = _draw([0, 1, 2, 3], 800, seed=1)
    whole = precision_recall(_draw([0, 1, 2, 3], 800, seed=2), real)
    dropped = precision_recall(_draw([0, 1], 800, seed=2), real)
    assert abs(dropped.precision - whole.precision) < 0.03 and whole.precision > 0.9
    assert dropped.recall < whole.recall - 0.4
    assert density_coverage(_draw([0, 1], 800, seed=2), real).coverage < 0.6


def test_invented_modes_lower_precision_and_leave_recall():
    real = _draw([0, 1], 800, seed=1)
    whole = precision_recall(_draw([0, 1], 800, seed=2), real)
    invented = precision_recall(_draw([0, 1, 2, 3], 1600, seed=2), real)
    assert invented.precision < whole.precision - 0.4
    assert abs(invented.recall - whole.recall) < 0.03 and whole.recall > 0.9
    assert density_coverage(_draw([0, 1, 2, 3], 1600, seed=2), real).density < 0.6


@pytest.mark.parametrize("k", [2, 5])
def test_two_draws_of_one_law_have_the_expected_density_and_coverage(k):
    """Naeem et al. (2020), Lemmas 1 and 2: density 1, coverage near 1 - 2**-k, in any law and width."""
    found = np.array(
        [density_coverage(*np.random.default_rng(seed).normal(size=(2, 400, 6)), k=k) for seed in range(12)]
    )
    error = found.std(axis=0) / np.sqrt(len(found))
    assert (np.abs(found.mean(axis=0) - [1, 1 - 2.0**-k]) < 4 * error + [0, 0.01]).all()


def test_an_outlier_in_the_reference_inflates_precision_but_hardly_density():
    real = RNG.normal(size=(300, 2))
    far = RNG.normal([9, 9], 0.1, size=(300, 2))
    stray = np.concatenate([real, [[14.0, 14.0]]])
    assert precision_recall(far, real).precision == 0 and precision_recall(far, stray).precision == 1
    assert density_coverage(far, stray).density <= 0.2


def test_copies_lie_on_borders_and_every_block_and_order_counts_them_alike():
    reference = np.random.default_rng(3).normal(5, 1, size=(200, 24)).astype(np.float32)
    samples = np.repeat(reference[:20], 5, axis=0)
    expected = precision_recall(samples, reference), density_coverage(samples, reference)
    assert expected[0].precision == 1
    for block, seed in ((7, 0), (64, 1), (199, 2)):
        mixed = np.random.default_rng(seed).permutation(samples), np.random.default_rng(seed).permutation(reference)
        assert precision_recall(*mixed, block=block) == expected[0]
        assert density_coverage(*mixed, block=block) == expected[1]


def test_realism_sorts_by_closeness_to_the_data():
    reference = RNG.normal(size=(500, 5))
    shells = np.repeat([0.5, 2.0, 4.0, 8.0], 50)
    directions = RNG.normal(size=(200, 5))
    samples = shells[:, None] * directions / np.linalg.norm(directions, axis=1, keepdims=True)
    scores = realism(samples, reference)
    means = [np.median(scores[shells == s]) for s in (0.5, 2.0, 4.0, 8.0)]
    assert means == sorted(means, reverse=True) and means[0] > 1 > means[-1]
    assert np.isinf(realism(reference[:3], reference[:-1])).any()
    # by Eq. 3 a sample scores 1 or more exactly where it lies in a ball that was not pruned
    assert (precision_recall(samples, reference).precision) >= (scores >= 1).mean()


@pytest.mark.parametrize("metric", [precision_recall, density_coverage, realism])
@pytest.mark.parametrize(
    "samples,reference,k,words",
    [
        (np.zeros((5, 2)), np.zeros((9, 3)), 3, "equal D"),
        (np.zeros((0, 2)), np.zeros((9, 2)), 3, "at least one row"),
        (np.full((5, 2), np.nan), np.zeros((9, 2)), 3, "finite"),
        (np.zeros((9, 2)), np.zeros((3, 2)), 3, "smaller k"),
        (np.zeros((9, 2)), np.zeros((9, 2)), 0, "smaller k"),
    ],
)
def test_bad_features_are_refused_in_one_sentence(metric, samples, reference, k, words):
    with pytest.raises(UserError, match=words):
        metric(samples, reference, k)
