"""`scenes`: what each pixel is, that a scene depends on its number alone, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from jaxgen.data import open_source
from jaxgen.data.sources.scenes import PALETTE
from jaxgen.errors import UserError


def scenes(argument="", split="train", resolution=32, **options):
    name = f"scenes:{argument}" if argument else "scenes"
    return open_source(name, split, resolution=resolution, channels=3, **options)


def test_a_scene_has_one_to_three_shapes_and_the_front_one_is_whole():
    batch = scenes("circle,star").take(range(60))
    assert batch["mask"].shape == (60, 32, 32) and batch["image"].dtype == np.uint8
    assert {*np.unique(batch["mask"])} == {0, 1, 2}
    for mask, label in zip(batch["mask"], batch["label"], strict=True):
        assert (mask == label + 1).sum() > 25 and (mask == 0).sum() > 200


def test_neither_colours_nor_patterns_tell_the_ground_from_the_objects():
    batch = scenes().take(range(200))
    near = np.abs(batch["image"][..., None, :] - PALETTE.astype(np.int16)).sum(-1) < 3
    for colour in range(len(PALETTE)):
        on = near[..., colour]
        assert (batch["mask"][on] == 0).any() and (batch["mask"][on] > 0).any()


def test_a_scene_is_a_function_of_split_and_number_at_any_resolution():
    again, finer = scenes()[7], scenes(resolution=64)[7]
    np.testing.assert_array_equal(again["image"], scenes()[7]["image"])
    small = finer["image"].reshape(32, 2, 32, 2, 3).mean((1, 3))
    assert np.abs(small - again["image"]).mean() < 8
    assert (finer["mask"][1::2, 1::2] == again["mask"]).mean() > 0.95
    assert not np.array_equal(again["image"], scenes(split="test")[7]["image"])


def test_the_mask_is_where_the_shape_is():
    """A circle fills pi/4 of the box around it, and a ring as much less as its hole is; no turn changes that."""
    for name, share in (("circle", np.pi / 4), ("ring", np.pi / 4 * (1 - (0.45 / 0.95) ** 2))):
        found = []
        for mask in scenes(name, resolution=64).take(range(40))["mask"]:
            ys, xs = np.nonzero(mask)
            height, width = np.ptp(ys) + 1, np.ptp(xs) + 1
            if len(ys) and abs(height - width) < 2 and min(ys.min(), xs.min()) > 0 and max(ys.max(), xs.max()) < 63:
                found.append(len(ys) / (height * width))
        assert len(found) > 3 and abs(np.median(found) - share) < 0.06, (name, found)


@pytest.mark.parametrize(
    ("argument", "words"),
    [("circel", "no shape 'circel'; did you mean 'circle'"), ("star,star", "twice"), ("circle,", "no shape ''")],
)
def test_wrong_shapes_are_refused(argument, words):
    with pytest.raises(UserError, match=words):
        scenes(argument)


def test_other_requests_that_cannot_be_met_are_refused():
    with pytest.raises(UserError, match="has no split 'dev'"):
        scenes(split="dev")
    with pytest.raises(UserError, match="RGB"):
        open_source("scenes", "train", resolution=8, channels=1)
    with pytest.raises(UserError, match="label"):
        scenes("circle,star", num_classes=1)
