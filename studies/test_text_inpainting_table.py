"""Tests the holes of the inpainting study, and their numbers on images whose numbers are known."""

import numpy as np

from jaxgen.data import open_source
from jaxgen.data.sources import caption_shapes
from studies.text_inpainting import Holes, around

ROWS = open_source("caption_shapes:phrases", "unseen", 32, 3, 0).take(range(40))
HOLES = Holes.of(ROWS["image"], ROWS["attributes"], 2)


def test_a_hole_hides_the_object_and_asks_for_another_one_at_its_place():
    hidden = np.where(HOLES.unknown[..., None], 0, HOLES.images)
    assert hidden.max() < 60 and 0.1 < HOLES.unknown.mean() < 0.6
    assert (HOLES.wanted[:, :2] != HOLES.attributes[:, :2]).all()
    np.testing.assert_array_equal(HOLES.wanted[:, 2], HOLES.attributes[:, 2])
    assert HOLES.wanted.min() >= 0 and HOLES.wanted.max() < 9
    for text, wanted in zip(HOLES.texts(HOLES.wanted), HOLES.wanted, strict=True):
        np.testing.assert_array_equal(caption_shapes.read_caption(text), wanted)


def test_what_was_asked_for_is_right_and_another_text_is_at_chance():
    draws = np.random.default_rng(0).random((40, 16))
    drawn = {
        name: np.stack([caption_shapes.draw(values, d, (32, 32)) for values, d in zip(said, draws, strict=True)])
        for name, said in {"own": HOLES.wanted, "other": HOLES.shuffled}.items()
    }
    own, other = (HOLES.judged(images) for images in drawn.values())
    assert own["both"] > 0.9 and other["both"] < 0.2 and other["colour"] < 0.4
    assert HOLES.judged(HOLES.images)["known"] == 1 and HOLES.judged(HOLES.images)["both"] == 0


def test_an_image_that_is_black_has_no_hole():
    assert not around(np.zeros((8, 8, 3), np.uint8), 2).any()
