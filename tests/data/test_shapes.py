"""The drawn scenes: what is said about them agrees with their pixels."""

from __future__ import annotations

import numpy as np
import pytest

from jaxgen.data import open_source
from jaxgen.data.sources import shapes
from jaxgen.errors import UserError


def scenes(split="train", resolution=48, count=150):
    source = open_source("shapes", split, resolution, 3)
    return [source[i] for i in range(count)]


def named(example, attribute):
    return shapes.NAMES[attribute][example["attributes"][shapes.ATTRIBUTES.index(attribute)]]


def test_layout():
    example = open_source("shapes", "val", (16, 24), 3, 8)[0]
    layout = {key: (value.shape, value.dtype) for key, value in example.items() if key != "caption"}
    assert layout == {
        "image": ((16, 24, 3), np.uint8),
        "style": ((16, 24, 3), np.uint8),
        "outline": ((16, 24, 1), np.uint8),
        "mask": ((16, 24), np.int32),
        "attributes": ((6,), np.int32),
        "label": ((), np.int32),
    }


def test_captions_name_the_attributes_and_the_label_is_the_shape():
    for example in scenes(resolution=8):
        words = example["caption"].split()
        assert words[0] == "a" and words[-1] == "background"
        for attribute in shapes.ATTRIBUTES:
            word = named(example, attribute)
            assert word == "plain" or f" {word} " in f" {example['caption']} "
        assert ("plain" not in words) and named(example, "shape") == shapes.NAMES["shape"][example["label"]]


def test_mean_colours_inside_and_outside_the_mask_are_nearest_to_the_named_ones():
    plain = [example for example in scenes(count=400) if named(example, "texture") == "plain"]
    assert len(plain) > 50
    for example in plain:
        image = example["image"].astype(float)
        # A pixel on the edge mixes both; leave it out.
        edge = example["outline"][..., 0] < 255
        inside = image[(example["mask"] == 1) & ~edge]
        if len(inside):
            nearest = np.abs(shapes.COLOURS - inside.mean(0)).sum(1).argmin()
            assert shapes.NAMES["colour"][nearest] == named(example, "colour")
        outside = image[(example["mask"] == 0) & ~edge].mean(0)
        nearest = np.abs(shapes.BACKGROUNDS - outside).sum(1).argmin()
        assert shapes.NAMES["background"][nearest] == named(example, "background")


def test_the_mask_lies_in_the_named_cell_and_grows_with_the_named_size():
    areas = {size: [] for size in shapes.NAMES["size"]}
    for example in scenes():
        rows, columns = np.nonzero(example["mask"])
        cell = 3 * int(3 * rows.mean() / 48) + int(3 * columns.mean() / 48)
        assert shapes.NAMES["position"][cell] == named(example, "position")
        areas[named(example, "size")].append(len(rows))
    means = [np.mean(areas[size]) for size in ("small", "medium", "large")]
    assert means[0] * 1.5 < means[1] and means[1] * 1.4 < means[2]


def test_shapes_are_centred_and_within_the_unit_circle():
    side = (np.arange(400, dtype=np.float32) + 0.5) / 180 - 400 / 360
    x, y = np.meshgrid(side, side)
    for distance in shapes._DISTANCES:
        inside = distance(x, y) <= 0
        assert np.hypot(x[inside].mean(), y[inside].mean()) < 0.01
        assert 0.9 < np.hypot(x, y)[inside].max() < 1


def test_nothing_is_cut_off_at_the_border():
    for example in scenes(resolution=32, count=300):
        mask = example["mask"]
        assert not (mask[0].any() or mask[-1].any() or mask[:, 0].any() or mask[:, -1].any())


def test_textures_darken_a_part_of_the_object():
    for example in scenes(count=100):
        image = example["image"].astype(float).sum(-1)
        inside = image[(example["mask"] == 1) & (example["outline"][..., 0] == 255)]
        if len(inside) < 60:
            continue
        spread = inside.std() / inside.mean()
        assert spread < 0.01 if named(example, "texture") == "plain" else spread > 0.05


def test_the_outline_follows_the_border_of_the_mask():
    for example in scenes(count=60):
        mask = example["mask"]
        border = np.zeros_like(mask, bool)
        border[1:] |= mask[1:] != mask[:-1]
        border[:, 1:] |= mask[:, 1:] != mask[:, :-1]
        line = 255 - example["outline"][..., 0].astype(int)
        assert line[border].mean() > 90
        # Away from the border there is no line; at a sharp corner it reaches some pixels further.
        rows, columns = np.nonzero(border)
        far = np.ones_like(border)
        for row, column in zip(rows, columns, strict=True):
            far[max(0, row - 6) : row + 7, max(0, column - 6) : column + 7] = False
        assert far.any() and line[far].max() == 0


def test_the_style_shows_the_same_geometry_in_other_colours():
    for example in scenes(count=60):
        differs = np.abs(example["style"].astype(int) - example["image"]).mean()
        assert differs > 10
        ground = example["style"][0, 0]
        drawn = (example["style"] != ground).any(-1)
        assert drawn[example["mask"] == 1].mean() > 0.99
        assert drawn.mean() < example["mask"].mean() + 0.16


def test_a_scene_is_the_same_at_every_resolution_and_every_time():
    low, high = open_source("shapes", "test", 16, 3), open_source("shapes", "test", 64, 3)
    for index in range(20):
        small, large = low[index], high[index]
        assert small["caption"] == large["caption"] and (small["attributes"] == large["attributes"]).all()
        for key in ("image", "style"):
            shrunk = large[key].reshape(16, 4, 16, 4, 3).mean((1, 3))
            # A contour is at least a pixel wide, so the low style differs there.
            assert np.abs(shrunk - small[key]).mean() < (3 if key == "image" else 12)
        again = low[index]
        assert all(np.array_equal(again[key], small[key]) for key in small)


def test_splits_share_no_scene():
    ranges = [set(range(first, first + length)) for first, length in shapes.SPLITS.values()]
    assert sum(map(len, ranges)) == len(set.union(*ranges))
    assert [len(open_source("shapes", split, 8, 3)) for split in ("train", "test", "val")] == [60_000, 10_000, 5_000]
    first = [open_source("shapes", split, 32, 3)[0]["image"] for split in shapes.SPLITS]
    assert len({image.tobytes() for image in first}) == len(first)


def test_unseen_pairs_never_occur_in_seen_and_every_word_does():
    pairs = {
        split: {tuple(example["attributes"][:2]) for example in scenes(split, 4, 600)} for split in ("seen", "unseen")
    }
    assert not pairs["seen"] & pairs["unseen"]
    assert len(pairs["unseen"]) == 8 and len(pairs["seen"]) == 56
    for part in (0, 1):
        assert {pair[part] for pair in pairs["unseen"]} == {pair[part] for pair in pairs["seen"]} == set(range(8))


def test_attributes_are_independent_and_even():
    attributes = np.array([shapes._attributes(shapes._draws(i), "train") for i in range(6000)])
    for column, name in enumerate(shapes.ATTRIBUTES):
        counts = np.bincount(attributes[:, column], minlength=len(shapes.NAMES[name]))
        assert counts.min() > 0.8 * counts.mean()
    correlation = np.corrcoef(attributes.T) - np.eye(6)
    assert np.abs(correlation).max() < 0.06


def test_refusals():
    with pytest.raises(UserError, match="set it to 3"):
        open_source("shapes", "train", 32, 1)
    with pytest.raises(UserError, match="trian.*did you mean 'train'"):
        open_source("shapes", "trian", 32, 3)
    with pytest.raises(UserError, match="num_classes to 8"):
        open_source("shapes", "train", 32, 3, 5)
    with pytest.raises(IndexError):
        open_source("shapes", "val", 8, 3)[5_000]
