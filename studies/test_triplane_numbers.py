"""Tests the numbers of objects in space on true pictures, whose numbers are known."""

from __future__ import annotations

import numpy as np
import pytest

from jaxgen.data.sources.solids.solids import COMBINATIONS
from jaxgen.errors import UserError
from studies.triplane import Asked, found_first, measured, said_otherwise

NUM = 12


class Knowing:
    """A judge that knows the truth of the pictures that it was made with, and of no others."""

    def __init__(self, asked):
        self._images, self._attributes = asked.images, asked.attributes

    def _known(self, images):
        same = (images[:, None] == self._images[None]).all((2, 3, 4))
        assert same.any(1).all()
        return self._attributes[same.argmax(1)]

    def tell(self, images):
        return self._known(images)

    def features(self, images):
        return images.mean((1, 2)).astype(np.float64)

    def retrieval(self, images, attributes, kind):
        known, seen = COMBINATIONS[kind], self._known(images)
        near = (seen[:, None] == known[None]).all(2).astype(float)
        own = np.array([np.flatnonzero((known == one).all(1))[0] for one in attributes])
        return found_first(near, own, 99)


def test_true_pictures_show_what_is_said_and_agree_from_two_sides():
    asked = Asked.of("pairs", "unseen", 24, NUM)
    here = {
        "image": np.asarray(asked.here.image), "depth": asked.depth, "opacity": (asked.depth > 0).astype(np.float32),
    }  # fmt: skip
    judge, aside = Knowing(asked), np.asarray(asked.aside.image)
    found = measured(asked, asked, judge, here, aside, captions=True)
    assert found["retrieval"] == found["all"] == 1 and found["shuffled"] == 0
    assert found["depth"] == pytest.approx(1, abs=1e-4) and found["frechet"] == pytest.approx(0, abs=1e-6)
    other = measured(asked, asked, judge, here, np.roll(aside, 1, axis=0), captions=False)
    assert found["reprojection"] < 0.1 < 0.3 < other["reprojection"] and "retrieval" not in other
    assert "depth" not in measured(asked, asked, judge, {"image": here["image"]}, aside, captions=False)


def test_a_caption_is_found_among_others_of_its_kind_only_where_it_is_the_nearest():
    near, own = np.eye(6), np.arange(6)
    assert found_first(near, own, 5) == found_first(near, own, 99) == 1
    assert found_first(near, np.roll(own, 1), 5) == 0
    assert found_first(np.ones((6, 6)), own, 5) == 0  # ties are wrong
    chance = found_first(np.random.default_rng(1).random((4000, 40)), np.full(4000, 7), 3)
    assert chance == pytest.approx(1 / 4, abs=0.03)


def test_shuffled_captions_say_something_else_in_every_row():
    attributes = np.array([[0, 1, -1, -1], [0, 1, -1, -1], [2, 3, -1, -1], [0, 1, -1, -1]])
    other = said_otherwise(attributes)
    assert (other != attributes).any(1).all()
    with pytest.raises(UserError, match="--num higher"):
        said_otherwise(attributes[:2])
