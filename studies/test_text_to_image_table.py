"""Tests the numbers of text-to-image models on images whose numbers are known. That models draw, running it shows."""

import numpy as np
import pytest

from jaxgen.errors import UserError
from studies.text_to_image import Asked, Entry, clip_score, diversity, entry_of, judged, resized

ASKED = Asked.of("caption_shapes:phrases", "unseen", 32, 24, 2)


def units(rng, count, width=4):
    found = rng.normal(size=(count, width))
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def test_real_images_show_what_their_captions_say_and_are_as_diverse_as_the_data():
    found = judged((ASKED.real, *ASKED.more), ASKED, None, None, 9)
    assert found["all"] > 0.9 and found["shuffled"] < 0.2 and found["diversity"] == pytest.approx(1)
    again = judged(ASKED.more, ASKED, None, None, 9)
    assert again["all"] > 0.9 and "diversity" not in again  # the further real images are of the same captions
    assert (ASKED.more[0] != ASKED.real).any((1, 2, 3)).all()


def test_one_image_for_each_text_has_no_diversity():
    assert diversity((ASKED.real, ASKED.real), (ASKED.real, *ASKED.more)) == 0
    noise = np.random.default_rng(0).integers(0, 256, (2, *ASKED.real.shape), dtype=np.uint8)
    assert diversity(tuple(noise), (ASKED.real, *ASKED.more)) > 1


def test_the_clip_score_counts_opposite_directions_as_nothing():
    images = units(np.random.default_rng(1), 50)
    assert clip_score(images, images)["clip_score"] == pytest.approx(100)
    assert clip_score(images, -images)["clip_score"] == 0
    half = np.concatenate([images[:25], -images[25:]])
    found = clip_score(images, half)
    assert found["clip_score"] == pytest.approx(50) and found["clip_score_error"] == pytest.approx(50 / 50**0.5)


def test_images_of_another_size_are_means_of_pixels_or_repeated():
    small = resized(ASKED.real, 16)
    np.testing.assert_allclose(small, ASKED.real.reshape(24, 16, 2, 16, 2, 3).mean((2, 4)), atol=1)  # rounded twice
    np.testing.assert_array_equal(resized(ASKED.real, 64), ASKED.real.repeat(2, axis=1).repeat(2, axis=2))


def test_a_row_is_a_name_and_the_flags_of_a_model():
    found = entry_of("GLIDE, plain: --workdir=runs/a b --config.guidance.scale=1")
    assert found == Entry("GLIDE, plain", ("--workdir=runs/a", "b", "--config.guidance.scale=1"))
    for text in ("runs/glide_shapes", ": --workdir=a", "GLIDE:"):
        with pytest.raises(UserError, match="is no row: give 'NAME: FLAGS'"):
            entry_of(text)
