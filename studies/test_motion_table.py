"""Tests the numbers of videos on videos whose numbers are known. That a run draws, running it shows."""

import numpy as np
import pytest

from jaxgen.data import open_source
from jaxgen.files.pictures import open_image
from studies.motion import row_of, write_pictures


@pytest.fixture(scope="module")
def videos():
    return open_source("moving_shapes", "test", 32, 3, options={"frames": 4}).take(range(8))["video"]


def test_the_true_videos_are_where_they_are_and_others_are_not(videos):
    found = row_of(videos, videos)
    assert found["start"] == 0 and found["with a track"] == 1 and found["track_error"] < 0.3
    assert row_of(np.roll(videos, 1, axis=0), videos)["start"] > 3
    empty = videos.copy()
    empty[:2, 1] = 0
    assert row_of(empty, videos)["with a track"] == 0.75


def test_shuffled_frames_have_another_track_and_the_same_places(videos):
    shuffled = row_of(videos[:, [2, 0, 3, 1]], videos)
    assert shuffled["track_error"] > 5 * row_of(videos, videos)["track_error"]
    assert shuffled["error / way"] > 0.3 > 0.05 > row_of(videos, videos)["error / way"]
    assert shuffled["change_of_look"] == pytest.approx(row_of(videos, videos)["change_of_look"])


def test_pictures_have_a_line_for_each_video_and_a_frame_for_each(videos, tmp_path):
    write_pictures(tmp_path / "rows.jsonl", {"one": videos, "other": videos})
    png, gif = (open_image((tmp_path / f"rows.{kind}").read_bytes(), kind) for kind in ("png", "gif"))
    assert png.size == (1 + 4 * (64 + 1), 1 + 12 * (64 + 1)) and gif.n_frames == 4
