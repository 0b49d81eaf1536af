"""Confusion matrices and IoU against scikit-learn and by hand."""

import numpy as np
import pytest
from sklearn import metrics as peer

from jaxgen.errors import UserError
from jaxgen.metrics.analysis.segmentation import class_iou, confusion_matrix, mean_iou, pixel_accuracy

RNG = np.random.default_rng(0)
LABELS, FOUND = RNG.integers(0, 4, (2, 3, 8, 8))


def test_against_scikit_learn():
    matrix = confusion_matrix(LABELS, FOUND, 4)
    np.testing.assert_array_equal(matrix, peer.confusion_matrix(LABELS.ravel(), FOUND.ravel()))
    np.testing.assert_allclose(class_iou(matrix), peer.jaccard_score(LABELS.ravel(), FOUND.ravel(), average=None))
    assert mean_iou(matrix).value == pytest.approx(peer.jaccard_score(LABELS.ravel(), FOUND.ravel(), average="macro"))
    assert pixel_accuracy(matrix) == pytest.approx((LABELS == FOUND).mean())


def test_matrices_of_batches_add_up():
    parts = sum(confusion_matrix(x, y, 4) for x, y in zip(LABELS, FOUND, strict=True))
    np.testing.assert_array_equal(parts, confusion_matrix(LABELS, FOUND, 4))


def test_absent_classes_are_left_out_and_named_but_invented_ones_count():
    labels, found = np.array([[0, 0, 1, 1]]), np.array([[0, 0, 1, 5]])
    result = mean_iou(confusion_matrix(labels, found, 7))
    assert result.absent == (2, 3, 4, 6)
    assert result.value == pytest.approx((1 + 1 / 2 + 0) / 3)


def test_ignored_pixels_count_nowhere():
    labels = LABELS.copy()
    labels[:, 2:4] = 255
    kept = labels != 255
    expected = peer.confusion_matrix(LABELS[kept], FOUND[kept])
    np.testing.assert_array_equal(confusion_matrix(labels, FOUND, 4, ignore=255), expected)
    np.testing.assert_array_equal(confusion_matrix(labels.astype(np.uint8), FOUND.astype(np.uint8), 4, 255), expected)


def test_bad_masks_are_refused():
    for labels, found, words in (
        (LABELS, FOUND[:1], "equal shapes"),
        (LABELS / 1.0, FOUND, "integers"),
        (LABELS, FOUND + 1, "predictions hold classes 1 to 4"),
        (LABELS - 1, FOUND, "labels hold classes -1"),
    ):
        with pytest.raises(UserError, match=words):
            confusion_matrix(labels, found, 4)
    with pytest.raises(UserError, match="ignored"):
        pixel_accuracy(confusion_matrix(LABELS * 0, FOUND, 4, ignore=0))
