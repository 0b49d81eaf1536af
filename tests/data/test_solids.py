"""Solids: pictures, masks and depths are those of the solids' equations, and what is held out is never trained on."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from jaxgen.data import open_source
from jaxgen.data.sources import tokenizer_of
from jaxgen.data.sources.solids import solids
from jaxgen.data.sources.solids.casting import NAMES, Placed, stacked
from jaxgen.errors import UserError
from jaxgen.geometry import cameras


def test_layout_and_an_example_is_a_function_of_its_index():
    example = open_source("solids", "test", (16, 24), 3)[3]
    layout = {key: (value.shape, value.dtype) for key, value in example.items() if key != "caption"}
    assert layout == {
        "image": ((16, 24, 3), np.uint8), "camera": ((25,), np.float32), "mask": ((16, 24), np.int32),
        "depth": ((16, 24, 1), np.float32), "label": ((), np.int32), "attributes": ((4,), np.int32),
        "tokens": ((solids.LENGTH,), np.int32),
    }  # fmt: skip
    again = open_source("solids", "test", (16, 24), 3)[3]
    assert all(np.array_equal(example[key], again[key]) for key in example)
    finer = open_source("solids", "test", (48, 72), 3)[3]  # the middle of every three pixels is the same ray
    np.testing.assert_array_equal(finer["mask"][1::3, 1::3], example["mask"])
    np.testing.assert_allclose(finer["depth"][1::3, 1::3], example["depth"], atol=1e-5)
    assert example["label"] == example["attributes"][0]
    assert [len(open_source("solids", split, 8, 3)) for split in ("train", "test", "unseen")] == [60_000, 1_000, 1_000]


@pytest.mark.parametrize("kind", solids.KINDS)
def test_no_held_out_combination_is_in_training_or_test_and_only_those_are_unseen(kind):
    held = {tuple(row) for row in solids.COMBINATIONS[kind][solids.HELD_OUT[kind]].tolist()}
    assert abs(len(held) / len(solids.COMBINATIONS[kind]) - 0.1) < 0.003
    for split in ("train", "test", "unseen"):
        source = open_source(f"solids:{kind}", split, 8, 3)
        found = {tuple(source._attributes(source._draws(i)).tolist()) for i in range(1000)}
        assert (found <= held) if split == "unseen" else not (found & held)
    assert len(found) > 0.95 * len(held)


def test_every_two_attributes_of_a_pair_are_trained_on_together():
    trained = solids.PAIRS[~solids.HELD_OUT["pairs"]]
    for a, b in itertools.combinations(range(4), 2):
        assert len(np.unique(trained[:, [a, b]], axis=0)) == (5, 8, 5, 8)[a] * (5, 8, 5, 8)[b]
    single = solids.SINGLES[~solids.HELD_OUT["single"]]
    assert [len(np.unique(column)) for column in single.T] == [5, 8]


def test_depths_and_masks_are_those_of_the_solids_distances():
    """The rays are solved, and distances are another formula: seen points lie on their solid, and what is missed is."""
    source, seen = open_source("solids", "train", 20, 3), set()
    for index in range(60):
        example, scene = source[index], source.scene(index)
        origin, directions = cameras.rays(example["camera"].astype(np.float64), 20, 20)
        depth, mask = example["depth"].astype(np.float64)[..., 0], example["mask"]
        points = origin + depth[..., None] * directions
        distances = np.stack([solid.distance(points) for solid in scene])
        for number, solid in enumerate(scene, 1):
            assert (mask == number).any()
            np.testing.assert_allclose(distances[number - 1][mask == number], 0, atol=1e-6)
            seen.add(solid.name)
        along = np.linspace(2.5, 4.5, 81)
        rays = origin + along[:, None, None, None] * directions
        free = np.min([solid.distance(rays) for solid in scene], axis=0)
        assert free[:, mask == 0].min() > 0  # nothing is in the way where nothing is seen
        before = along[:, None, None] < depth - 1e-4
        assert free[before & (mask > 0)].min() > 0  # nor before what is seen
        assert np.linalg.norm(points[mask > 0], axis=-1).max() <= 1
        assert not np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]]).any()
        assert ((mask == 0) == (depth == 0)).all()
    assert seen == set(NAMES)


def test_a_spheres_depth_and_shade_are_its_closed_form():
    camera = cameras.look_at_origin(np.asarray(0.7), np.asarray(0.4))
    found = solids.render([Placed("sphere", 0.6)], [0], camera, (33, 33))
    origin, directions = cameras.rays(camera, 33, 33)
    along = -directions @ origin
    inside = 0.36 - (origin @ origin - along**2)
    np.testing.assert_array_equal(found["mask"] == 1, inside > 0)
    wanted = np.where(inside > 0, along - np.sqrt(inside.clip(0)), 0)
    np.testing.assert_allclose(found["depth"][..., 0], wanted, rtol=1e-6)
    normal = (origin + found["depth"] * directions) / 0.6
    light = solids.AMBIENT + solids.DIFFUSE * np.maximum(normal @ solids.LIGHT, 0)
    core = inside > 0.2  # away from the border, whose pixels see the ground too
    np.testing.assert_allclose(found["image"][core], light[core][:, None] * (220, 30, 30), atol=2.5)


@pytest.mark.parametrize("upper", NAMES)
def test_the_upper_solid_touches_the_lower_one_and_does_not_enter_it(upper):
    x, z = np.meshgrid(np.linspace(0, 1, 201), np.linspace(-1, 1, 401))
    points = np.stack([x, 0 * x, z], -1)  # all are alike around z but the cubes, whose profile this is too
    for lower in NAMES:
        heights = stacked(upper, 0.43, lower, 0.39)
        both = zip((upper, lower), (0.43, 0.39), heights, strict=True)
        two = [Placed(*solid).distance(points) for solid in both]
        assert abs(np.max(two, axis=0).min()) < 0.006, lower  # the grid's step is .005
        whole = z[np.min(two, axis=0) <= 0]
        assert abs(whole.min() + whole.max()) < 0.011 and heights[0] > heights[1], lower


def test_captions_say_what_the_attributes_are_and_tokens_are_their_words():
    source = open_source("solids", "test", 4, 3)
    taken = source.take(range(40))
    assert list(taken["caption"]) == source.captions[:40]
    for text, attributes in zip(taken["caption"], taken["attributes"], strict=True):
        parts = text.split(" on ")
        assert len(parts) == (attributes >= 0).sum() / 2
        for part, (solid, colour) in zip(parts, attributes.reshape(2, 2), strict=False):
            assert part.split()[1:] == [solids.COLOURS[colour], NAMES[solid]]
    assert 10 < sum(" on " in text for text in taken["caption"]) < 30
    assert [solids.TOKENIZER.decode(ids) for ids in taken["tokens"]] == list(taken["caption"])
    np.testing.assert_array_equal(taken["tokens"], solids.tokens_of(list(taken["caption"])))
    assert solids.tokens_of(["an orange torus on a blue cone"])[0, -1] == 1  # its end fits
    assert tokenizer_of("solids:pairs") == solids.TOKENIZER


def test_only_rgb_known_kinds_and_splits():
    for source, split, channels, sentence in (
        ("solids:pair", "train", 3, "did you mean 'pairs'"), ("solids", "val", 3, "val"), ("solids", "train", 1, "RGB"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=sentence):
            open_source(source, split, 8, channels)
