"""Moving digits: each is a digit of its split, is where the track says, and moves evenly."""

from __future__ import annotations

import numpy as np
import pytest

from jaxgen.data import open_source
from jaxgen.data.sources import digits, shapes
from jaxgen.errors import UserError
from jaxgen.metrics.analysis.tracks import even_motion


@pytest.fixture(scope="module")
def taken():
    return open_source("moving_digits", "test", 32, 1, options={"frames": 5}).take(range(60))


def mean_places(video):
    """Returns the mean place of the light of each frame, in pixels."""
    light = video[..., 0].astype(float)
    total = light.sum((2, 3))
    across, down = (np.arange(size) + 0.5 for size in (light.shape[3], light.shape[2]))
    return np.stack([(light.sum(2) * across).sum(-1) / total, (light.sum(3) * down).sum(-1) / total], -1)


def test_layout_and_the_same_way_in_more_frames():
    example = open_source("moving_digits", "train", (16, 24), 3, options={"frames": 3})[0]
    layout = {key: (value.shape, value.dtype) for key, value in example.items() if key != "caption"}
    assert layout == {
        "image": ((16, 24, 3), np.uint8), "video": ((3, 16, 24, 3), np.uint8), "track": ((3, 2), np.float32),
        "label": ((), np.int32), "attributes": ((2,), np.int32), "tokens": ((digits.LENGTH,), np.int32),
    }  # fmt: skip
    again = open_source("moving_digits", "train", (16, 24), 3, options={"frames": 5})[0]
    np.testing.assert_array_equal(again["video"][[0, 2, 4]], example["video"])
    np.testing.assert_array_equal(example["image"], example["video"][0])


def test_a_digit_stays_at_the_same_place_of_its_square_and_moves_evenly(taken):
    off = mean_places(taken["video"]) - 32 * taken["track"]
    whole = (np.abs(taken["track"] - 0.5) < 0.25 - 1 / 32).all((1, 2))  # a square at the border loses some light
    assert whole.sum() >= 5
    off = off[whole]
    assert np.abs(off - off[:, :1]).max() < 0.1  # pixels; a wrong or whole-pixel place is off by up to a half
    assert np.abs(off).max() < 4  # no light is farther from the middle than half the square
    assert even_motion(32 * taken["track"].astype(float))[0].max() < 1e-4
    place = np.rint((taken["track"][:, 0] - 0.27) / 0.23).astype(int)
    np.testing.assert_array_equal(place[:, 1] * 3 + place[:, 0], taken["attributes"][:, 1])


def test_the_digit_is_one_of_its_own_split_and_the_sentence_names_it():
    # At 16 pixels a digit is 8 pixels wide. In the centre, averaged over places between pixels, it is blurred, so that
    # the nearest digit of the split is found among all by its likeness, and has the label.
    own = open_source("digits", "test", 8, 1).arrays
    sample = open_source("moving_digits", "test", 64, 1).take(range(12))
    for video, track, label, sentence in zip(
        sample["video"], sample["track"], sample["label"], sample["caption"], strict=True
    ):
        corner = 64 * track[0] - 16
        rows, columns = (np.rint(corner[axis] + 4 * np.arange(8) + 1.5).astype(int) for axis in (1, 0))
        seen = np.pad(video[0, ..., 0].astype(float), 8)[np.ix_(rows + 8, columns + 8)]
        distance = np.square(own["image"][..., 0] - seen).mean((1, 2))
        assert own["label"][distance.argmin()] == label and distance.min() < 0.2 * np.median(distance)
        assert sentence.split()[2] == digits.WORDS[label]
    assert set(sample["caption"]) <= {
        f"the digit {digit} at the {place}" for digit in digits.WORDS for place in shapes.NAMES["position"]
    }


def test_what_is_wrong_with_a_request_is_said():
    with pytest.raises(UserError, match="options.frames is 1; a video has at least 2"):
        open_source("moving_digits", "train", 16, 1, options={"frames": 1})
    with pytest.raises(UserError, match="not of 4 channels; set config.data.channels=1 or 3"):
        open_source("moving_digits", "train", 16, 4)
    with pytest.raises(UserError, match="no split 'val'"):
        open_source("moving_digits", "val", 16, 1)
