"""Moving shapes: the object is where the track says, moves evenly, and stays the one that the sentence names."""

from __future__ import annotations

import numpy as np
import pytest

from jaxgen.data import open_source
from jaxgen.data.sources import moving_shapes, shapes
from jaxgen.data.sources.concept_shapes import CONCEPTS, LENGTH, TOKENIZER
from jaxgen.errors import UserError
from jaxgen.metrics.analysis.shape_attributes import read_attributes
from jaxgen.metrics.analysis.tracks import centres, change_of_look, even_motion, flicker
from jaxgen.metrics.asked.tracks import Tracks
from jaxgen.metrics.base import RunFacts
from jaxgen.metrics.images import EvaluationImages

ROUND = [shapes.NAMES["shape"].index(name) for name in ("circle", "square", "diamond", "cross")]  # centroid at 0


@pytest.fixture(scope="module")
def taken():
    return open_source("moving_shapes", "test", 64, 3, options={"frames": 5}).take(range(40))


def test_layout():
    opened = open_source("moving_shapes", "train", (16, 24), 3, options={"frames": 3})
    example = opened[0]
    layout = {key: (value.shape, value.dtype) for key, value in example.items() if key != "caption"}
    assert layout == {
        "image": ((16, 24, 3), np.uint8), "video": ((3, 16, 24, 3), np.uint8), "outline": ((3, 16, 24, 1), np.uint8),
        "track": ((3, 2), np.float32), "label": ((), np.int32), "attributes": ((4,), np.int32),
        "tokens": ((LENGTH,), np.int32),
    }  # fmt: skip
    assert "each image is the first frame of its video" in opened.summary()
    np.testing.assert_array_equal(example["image"], example["video"][0])
    again = open_source("moving_shapes", "train", (16, 24), 3, options={"frames": 5})[0]
    np.testing.assert_array_equal(again["track"][[0, 2, 4]], example["track"])  # the same way, seen more often
    np.testing.assert_array_equal(again["video"][[0, 2, 4]], example["video"])


def test_the_object_is_where_the_track_says(taken):
    chosen = np.isin(taken["label"], ROUND)
    assert chosen.sum() > 10
    places = centres(taken["video"][chosen])
    assert np.abs(places - 64 * taken["track"][chosen]).max() < 0.5
    assert np.sqrt(np.square(places - 64 * taken["track"][chosen]).mean()) < 0.15


def test_the_track_is_even_and_has_the_length_that_is_said(taken):
    error, length = even_motion(64 * taken["track"].astype(float))
    assert error.max() < 1e-4
    least, most = moving_shapes.SHORTEST * 64, moving_shapes.LONGEST * 64
    assert (length > least - 1e-3).all() and (length < most + 1e-3).all() and length.std() > 2
    # the whole object stays in the picture, as that of the images that the base learned from
    radius = shapes.RADII[moving_shapes.SIZE]
    assert taken["track"].min() > radius - 0.03 and taken["track"].max() < 1 - radius + 0.03


def test_the_sentence_is_of_the_first_frame_and_of_the_base(taken):
    known = taken["attributes"]
    seen = read_attributes(taken["video"][:, 0])
    np.testing.assert_array_equal(seen[:, [0, 1, 2]], known[:, [0, 1, 3]])
    np.testing.assert_array_equal(taken["tokens"], TOKENIZER(taken["caption"].tolist()))
    words = {word for sentence in taken["caption"] for word in sentence.split()}
    assert not words & {*CONCEPTS}
    last = read_attributes(taken["video"][:, -1])
    np.testing.assert_array_equal(last[:, :2], seen[:, :2])


def test_what_is_wrong_with_a_request_is_said():
    with pytest.raises(UserError, match="options.frames is 1; a video has at least 2"):
        open_source("moving_shapes", "train", 8, 3, options={"frames": 1})
    with pytest.raises(UserError, match="no split 'unseen'"):
        open_source("moving_shapes", "unseen", 8, 3)


def test_independent_and_shuffled_frames_have_a_larger_track_error_and_no_track_is_no_error(taken):
    video = taken["video"]
    error, length = even_motion(centres(video))
    assert error.max() < 0.4 and np.abs(length - even_motion(64 * taken["track"].astype(float))[1]).max() < 1
    assert even_motion(centres(video[:, [2, 0, 4, 1, 3]]))[0].min() > 1
    still = np.repeat(video[:, :1], 5, axis=1)
    assert even_motion(centres(still))[0].max() < 1e-9 and even_motion(centres(still))[1].max() < 1e-9
    empty = video[:3].copy()
    empty[0, 1] = 0
    np.testing.assert_array_equal(np.isnan(even_motion(centres(empty))[0]), [True, False, False])
    np.testing.assert_array_equal(np.isnan(change_of_look(empty)), [True, False, False])


def test_flicker_is_the_mean_squared_change_of_the_ground_alone(taken):
    assert flicker(taken["video"]).max() == 0
    noise = np.random.default_rng(0).integers(0, 5, taken["video"].shape).astype(np.uint8)
    flickering = np.where(taken["video"] < 20, noise, taken["video"])
    np.testing.assert_allclose(flicker(flickering).mean(), 2 * np.var(np.arange(5)), rtol=0.05)
    darker = taken["video"].copy()
    darker[:, 1::2] = darker[:, 1::2] * 0.9
    assert change_of_look(darker).mean() > 4 * change_of_look(taken["video"]).mean() > 0


def test_the_metric_stands_between_the_true_videos_and_shuffled_frames(taken):
    video = taken["video"]
    seen = EvaluationImages(
        np.roll(video, 3, axis=0), None, video[:, 0], video[:, 0], None, "held out", asked={"video": video},
        entry="video",
    )  # fmt: skip
    found = Tracks().scores(seen, None)
    assert {*found} == {*Tracks().numbers}
    error = found["track_error"]
    assert error.value == pytest.approx(error.floor) and error.noise > 10 * error.value
    assert found["track_length"].better is None and found["track_length"].value == pytest.approx(16, abs=2)
    with pytest.raises(UserError, match="these have 4"):
        Tracks().check_run(RunFacts((8, 8, 4), "video", "x", frozenset(), ()))
