"""AUROC and accuracy-rejection curves against scikit-learn and by hand; corrupted images by what they keep."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from jaxgen.errors import UserError
from jaxgen.metrics.analysis.outliers import (
    accuracy_rejection,
    auroc,
    corrupted,
    cropped,
    permuted,
    rotated,
    typicality,
)

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)


@pytest.mark.parametrize("decimals", [1, 6])
def test_auroc_against_scikit_learn_with_and_without_ties(decimals):
    inside, outside = RNG.normal(size=80).round(decimals), RNG.normal(0.7, 2, size=50).round(decimals)
    theirs = roc_auc_score(np.repeat([0, 1], [80, 50]), np.concatenate([inside, outside]))
    assert auroc(inside, outside) == pytest.approx(theirs, abs=1e-12)
    assert auroc(outside, inside) == pytest.approx(1 - theirs, abs=1e-12)


def test_auroc_at_its_ends():
    assert auroc(np.arange(4), np.arange(4, 9)) == 1
    assert auroc(np.zeros(4), np.zeros(3)) == 0.5
    assert auroc(np.zeros(4), np.full(2, np.inf)) == 1
    for bad in (np.array([]), np.array([0.0, np.nan])):
        with pytest.raises(UserError, match="Scores"):
            auroc(np.zeros(3), bad)


def test_rejecting_the_wrong_ones_first_is_the_best_curve():
    correct = np.array([True] * 6 + [False] * 4)
    shares = np.array([0.0, 0.2, 0.4, 0.6])
    best = accuracy_rejection(1.0 - correct, correct, shares)
    np.testing.assert_allclose(best, [0.6, 0.75, 1, 1])
    worst = accuracy_rejection(1.0 * correct, correct, shares)
    np.testing.assert_allclose(worst, [0.6, 0.5, 1 / 3, 0])
    # a score that says nothing leaves the accuracy as it is, in whatever order the inputs come
    np.testing.assert_allclose(accuracy_rejection(np.zeros(10), correct, shares), 0.6)


def test_a_curve_against_counting_by_hand():
    scores, correct = RNG.normal(size=200), RNG.random(200) < 0.7
    for share in (0.0, 0.1, 0.55):
        kept = np.argsort(scores)[: round(200 * (1 - share))]
        assert accuracy_rejection(scores, correct, np.array([share]))[0] == pytest.approx(correct[kept].mean())
    with pytest.raises(UserError, match="shares"):
        accuracy_rejection(scores, correct, np.array([1.0]))
    with pytest.raises(UserError, match="as many"):
        accuracy_rejection(scores, correct[:3], np.array([0.0]))


def test_permuted_pixels_keep_their_values_and_share_their_order():
    out = permuted(IMAGES, seed=3)
    assert (out != IMAGES).mean() > 0.5
    np.testing.assert_array_equal(np.sort(out.reshape(5, 64, 3), axis=1), np.sort(IMAGES.reshape(5, 64, 3), axis=1))
    np.testing.assert_array_equal(permuted(IMAGES[2:4], seed=3), out[2:4])
    assert (permuted(IMAGES, seed=4) != out).any()


def test_four_quarter_turns_are_none():
    once = rotated(IMAGES)
    np.testing.assert_array_equal(once[0, :, 0], IMAGES[0, 0, ::-1])
    np.testing.assert_array_equal(rotated(once, 3), IMAGES)
    with pytest.raises(UserError, match="square"):
        rotated(np.zeros((1, 4, 6, 1), np.uint8))


def test_a_crop_enlarges_the_middle():
    np.testing.assert_array_equal(cropped(IMAGES, 1.0), IMAGES)
    ramp = np.tile(np.arange(0, 160, 10, dtype=np.uint8)[None, :, None, None], (1, 1, 16, 1))
    out = cropped(ramp, 0.5)[0, :, 5, 0]
    # the middle of a ramp is a ramp of half the slope around the same middle
    np.testing.assert_allclose(np.diff(out.astype(float)), 5, atol=1)
    assert out.astype(float).mean() == pytest.approx(75, abs=0.5)
    assert cropped(IMAGES[:, :, :5], 0.3).shape == (5, 8, 5, 3)


def test_outliers_are_made_the_same_again_and_differ_from_the_images():
    first, again = corrupted(IMAGES, 1), corrupted(IMAGES, 1)
    assert set(first) == {"permuted", "rotated", "cropped", "noise"}
    for name, images in first.items():
        assert images.dtype == np.uint8 and images.shape == IMAGES.shape
        np.testing.assert_array_equal(images, again[name])
        assert (images != IMAGES).any()
    with pytest.raises(UserError, match="uint8"):
        corrupted(IMAGES.astype(np.float32))


def test_typicality_tells_what_is_too_probable():
    training, inside = RNG.normal(100, 3, 500), RNG.normal(100, 3, 200)
    easier = RNG.normal(50, 3, 200)  # far more probable than the data
    assert auroc(inside, easier) == 0
    assert auroc(typicality(inside, training), typicality(easier, training)) == 1
    np.testing.assert_allclose(typicality(np.array([7.0, 1.0]), np.array([2.0, 3.0, 10.0])), [4.0, 2.0])
