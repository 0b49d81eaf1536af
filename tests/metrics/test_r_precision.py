"""R-precision: by hand, at chance, and which texts are no others."""

from __future__ import annotations

import numpy as np
import pytest

from jaxgen.data.sources import caption_shapes
from jaxgen.errors import UserError
from jaxgen.metrics.asked.caption_accuracy import CaptionAccuracy
from jaxgen.metrics.images import EvaluationImages
from jaxgen.metrics.pairs.r_precision import RPrecision, r_precision


def test_a_text_is_found_among_others_or_not():
    images = np.array([[1.0, 0], [1, 0], [0, 2]])
    texts = np.array([[3.0, 0], [0, 1], [0, 0.5]])  # the second image has the text of something else
    numbers = np.arange(3)
    np.testing.assert_array_equal(r_precision(images, texts, numbers, 2), [True, False, False])  # a tie is no hit
    np.testing.assert_array_equal(r_precision(images, texts, np.array([0, 1, 1]), 1), [True, False, True])


def test_texts_of_nothing_in_particular_are_found_by_chance():
    chance = np.random.default_rng(0)
    images, texts = chance.normal(size=(2, 4000, 6))
    found = r_precision(images, texts, np.arange(4000), 9)
    assert found.mean() == pytest.approx(0.1, abs=4 * (0.1 * 0.9 / 4000) ** 0.5)


def test_too_few_others_are_said():
    with pytest.raises(UserError, match="text 0 has 1 that say something else"):
        r_precision(np.eye(3), np.eye(3), np.array([0, 0, 1]), 2)
    with pytest.raises(UserError, match="1 or more"):
        RPrecision(others=0)


def test_captions_are_read_for_what_they_name():
    texts = ["a red disc at the top", "a crimson circle that is red at the top", "at the top there is a red box", "red"]
    own = ["a red circle at the top", *texts[1:]]
    tokens = caption_shapes.PHRASE_TOKENIZER(texts)
    truth = caption_shapes.PHRASE_TOKENIZER(own)
    wanted = np.array([[0, 0, 1], [0, 0, 1], [1, 0, 1], [1, 0, 1]], np.int32)
    blank = np.zeros((0, 8, 8, 3), np.uint8)
    asked = {"attributes": wanted, "tokens": truth}
    images = EvaluationImages(tokens, None, blank, blank, None, "four", asked=asked, entry="tokens")
    found = {name: score.value for name, score in CaptionAccuracy().scores(images, None).items()}
    assert found == {
        "caption_accuracy": 0.75, "caption_accuracy_shape": 0.75, "caption_accuracy_colour": 1.0,
        "caption_accuracy_position": 0.75, "caption_exact": 0.5, "caption_same": 0.75,
    }  # fmt: skip
