"""Tests the numbers of completed pictures on pictures whose numbers are known. That a run draws, running it shows."""

import numpy as np
import pytest

from jaxgen.metrics.networks.base import Features
from studies.palette import Asked, for_nothing, judged, shuffled, spread

RNG = np.random.default_rng(0)
TRUTH = RNG.integers(0, 256, (4, 8, 8, 3)).astype(np.uint8)
HOLE = np.zeros((4, 8, 8), bool)
HOLE[:, 2:6, 2:6] = True
LABELS = np.arange(4)
PICTURE = np.where(HOLE[..., None], 128, TRUTH).astype(np.uint8)
HOLES = Asked(TRUTH, PICTURE, HOLE, LABELS, np.array([1.0, 0.6, 0.4, 0.0]))
WHOLE = Asked(TRUTH, TRUTH // 2, np.ones_like(HOLE), LABELS, np.ones(4))


def by_corner(images):
    """Features that are the mean level; class i is seen where the middle is that of true image i."""
    middle = images[:, None, 3, 3] == TRUTH[None, :, 3, 3]
    return Features(images.mean((1, 2, 3))[:, None] / 255, middle.all(-1).astype(float))


def test_what_is_known_is_that_of_the_truth_in_every_row():
    other = np.full_like(TRUTH, 9)
    np.testing.assert_array_equal(HOLES.completed(other)[~HOLE], TRUTH[~HOLE])
    assert (HOLES.completed(other)[HOLE] == 9).all() and HOLES.first(2).completed(other[:2]).shape == (2, 8, 8, 3)


def test_the_truth_is_at_no_distance_and_another_image_at_one():
    assert judged(TRUTH, HOLES, by_corner) == {"feature distance": 0, "class kept": 1, "of seen ones": 1}
    next_ones = judged(np.roll(TRUTH, -1, axis=0), HOLES, by_corner)
    assert next_ones == {"feature distance": pytest.approx(1), "class kept": 0, "of seen ones": 0}
    half = np.where(LABELS[:, None, None, None] < 2, TRUTH, np.roll(TRUTH, -1, axis=0))
    found = judged(half, HOLES, by_corner)
    assert found["class kept"] == 0.5 and found["of seen ones"] == 1  # the objects of the others are hidden


def test_shuffled_conditions_are_another_image_with_the_same_hole():
    found = shuffled(HOLES)
    np.testing.assert_array_equal(found[~HOLE], np.roll(TRUTH, -1, axis=0)[~HOLE])
    assert (found[HOLE] == 128).all()
    np.testing.assert_array_equal(shuffled(WHOLE), np.roll(WHOLE.picture, -1, axis=0))


def test_draws_that_are_equal_have_no_diversity_and_those_of_other_images_have_one():
    assert spread([TRUTH, TRUTH], HOLES) == (0, 0)
    own, away = spread([TRUTH, np.roll(TRUTH, 1, axis=0)], HOLES)
    assert own == pytest.approx(1) and away == pytest.approx(0.5)


def test_a_flat_image_is_completed_for_nothing():
    pytest.importorskip("skimage")
    flat = np.full_like(TRUTH, 77)
    picture = np.where(HOLE[..., None], 0, flat).astype(np.uint8)
    found = for_nothing(Asked(flat, picture, HOLE, LABELS, np.ones(4)))
    assert list(found) == ["the mean of what is known", "biharmonic"]
    for images in found.values():
        np.testing.assert_array_equal(images, flat)
    np.testing.assert_array_equal(for_nothing(WHOLE)["the picture as it is"], WHOLE.picture)


def test_completions_for_nothing_do_not_see_the_hole():
    pytest.importorskip("skimage")
    hidden = np.where(HOLE[..., None], 255 - TRUTH, TRUTH)
    other = for_nothing(Asked(hidden, PICTURE, HOLE, LABELS, np.ones(4)))
    for name, images in for_nothing(HOLES).items():
        np.testing.assert_array_equal(images, other[name])
