"""Objects are told apart by their cores, and the numbers that say how well are those of arithmetic."""

from __future__ import annotations

import numpy as np
import pytest

from jaxgen.errors import UserError
from jaxgen.metrics.analysis import instances
from jaxgen.metrics.analysis.instances import aggregated_jaccard, average_precision, instances_of, layers_of, matches


def discs(*places, size=48):
    """Discs `(row, column, radius)`, numbered from 1 on; a later one covers an earlier one."""
    rows, columns = np.mgrid[:size, :size]
    found = np.zeros((size, size), np.int32)
    for number, (row, column, radius) in enumerate(places, 1):
        found[(rows - row) ** 2 + (columns - column) ** 2 <= radius**2] = number
    return found


TOUCHING = ((14, 14, 9), (14, 30, 8), (36, 20, 7))


def test_touching_objects_are_found_again_from_their_layers():
    pytest.importorskip("skimage")
    truth = discs(*TOUCHING)
    layers = layers_of(truth)
    assert set(np.unique(layers)) == {0, 1, 2} and ((layers > 0) == (truth > 0)).all()
    found = instances_of(layers)
    assert found.max() == 3
    assert aggregated_jaccard(truth, found) > 0.97
    assert instances_of(np.minimum(layers, 1)).max() == 2  # without cores the two that touch are one
    speck = layers.copy()
    speck[0, 47] = 2
    np.testing.assert_array_equal(instances_of(speck), found)  # too small for an object
    assert instances_of(np.zeros((8, 8), np.int32)).max() == 0


def test_every_object_has_a_core_and_the_edge_of_the_picture_is_no_border():
    truth = discs(*TOUCHING, (0, 40, 5), (47, 47, 1))
    layers = layers_of(truth)
    assert all((layers[truth == number] == 2).any() for number in range(1, 6))
    assert layers[0, 40] == 2, "half of the object lies outside, and its middle is on the edge"
    np.testing.assert_array_equal(layers_of(np.ones((4, 4), np.int32)), np.full((4, 4), 2))
    np.testing.assert_array_equal(layers_of(truth * 7), layers)  # numbers may have gaps


def strips(*lengths):
    """One row of objects, side by side; a negative length is ground."""
    parts = [np.full(abs(n), number if n > 0 else 0) for number, n in enumerate(lengths, 1)]
    return np.concatenate(parts)[None].astype(np.int32)


def test_the_aggregated_jaccard_index_by_hand():
    truth = strips(10, -5, 10, -5)
    assert aggregated_jaccard(truth, truth) == 1
    np.testing.assert_allclose(aggregated_jaccard(truth, strips(30)), (10 + 10) / (30 + 30))  # both choose it
    halves = strips(6, 4, -5, 10, -5)
    np.testing.assert_allclose(aggregated_jaccard(truth, halves), (6 + 10) / (10 + 10 + 4))  # 4 was chosen by none
    np.testing.assert_allclose(aggregated_jaccard(truth, strips(10, -20)), 10 / 20)
    np.testing.assert_allclose(aggregated_jaccard(truth, strips(-10, 5, -15)), 0)
    empty = np.zeros_like(truth)
    assert (aggregated_jaccard(empty, empty), aggregated_jaccard(truth, empty), aggregated_jaccard(empty, truth)) == (
        1, 0, 0
    )  # fmt: skip


def test_average_precision_by_hand():
    truth = strips(10, -5, 10, -5)
    found = strips(8, -7, 4, 6, -5)  # 0.8 of the first; 0.4 and 0.6 of the second
    counts = matches(truth, found, (0.5, 0.7, 0.9))
    np.testing.assert_array_equal(counts, [[2, 1, 0], [1, 2, 1], [0, 3, 2]])
    np.testing.assert_allclose(average_precision(counts), [2 / 3, 1 / 4, 0])
    np.testing.assert_allclose(average_precision(matches(truth, truth)), np.ones(len(instances.THRESHOLDS)))
    assert average_precision(np.zeros((1, 3), int)) == 1
    with pytest.raises(UserError, match="0.5 or more, not 0.3"):
        matches(truth, found, (0.3,))
    with pytest.raises(UserError, match="compared at one size"):
        matches(truth, found[:, :-1])
