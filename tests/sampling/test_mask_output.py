"""Masks as what a method gives: their colours, the files that others read, and the metric of them."""

from __future__ import annotations

import numpy as np
import pytest
from etils import epath
from PIL import Image

from jaxgen.colours import class_colours
from jaxgen.data import open_source
from jaxgen.metrics.asked.mean_iou import MeanIou
from jaxgen.metrics.images import EvaluationImages
from jaxgen.sampling.kinds import Mask

CHANCE = np.random.default_rng(0)


def test_classes_have_colours_of_their_own():
    colours = class_colours(256)
    assert len(np.unique(colours, axis=0)) == 256 and (colours[0] == 0).all()
    np.testing.assert_array_equal(class_colours(3), colours[:3])


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Two masks of which one has few classes, written as those of a user's pictures."""
    folder = epath.Path(tmp_path_factory.mktemp("masks"))
    masks = np.stack([CHANCE.integers(0, high, (6, 10), np.int32) for high in (3, 256)])
    given = CHANCE.integers(0, 256, (2, 6, 10, 3), np.uint8)
    output = Mask()
    output.write_named(folder, ["few", "many"], masks, output.pictures(masks, np.ones(2, bool)), given)
    return folder, masks, given


def test_a_mask_file_holds_the_classes_as_indices_of_their_colours(written):
    folder, masks, _ = written
    for name, mask in zip(("few", "many"), masks, strict=True):
        with Image.open(folder / "masks" / f"{name}.png") as picture:
            assert picture.mode == "P"
            np.testing.assert_array_equal(np.asarray(picture), mask)
            np.testing.assert_array_equal(np.asarray(picture.convert("RGB")), class_colours(256)[mask])


def test_an_overlay_leaves_the_ground_and_is_half_of_the_colour_elsewhere(written):
    folder, masks, given = written
    for name, mask, picture in zip(("few", "many"), masks, given, strict=True):
        overlay = np.asarray(Image.open(folder / "overlays" / f"{name}.png")).astype(int)
        np.testing.assert_array_equal(overlay[mask == 0], picture[mask == 0])
        halves = (picture.astype(float) + class_colours(256)[mask]) / 2
        assert np.abs(overlay - halves)[mask > 0].max() <= 0.5


def test_masks_that_were_written_are_data_to_learn_from(written, tmp_path):
    folder, masks, given = written
    (tmp_path / "image").mkdir()
    for name, picture in zip(("few", "many"), given, strict=True):
        Image.fromarray(picture).save(tmp_path / "image" / f"{name}.png")
    (tmp_path / "mask").symlink_to(folder / "masks")
    found = open_source(f"pairs:{tmp_path}", "all", (6, 10), 3).take(range(2))
    np.testing.assert_array_equal(found["mask"], masks)
    np.testing.assert_array_equal(found["image"], given)


def scored(truth, samples, **options):
    none = np.zeros((0, 2, 4), np.int32)
    seen = EvaluationImages(samples, None, none, none, None, "x", asked={"mask": truth}, entry="mask")
    return MeanIou(**options).scores(seen, None)


def test_the_mean_iou_is_of_the_pixels_of_all_samples_and_its_noise_of_the_largest_class():
    truth = np.array([[[0, 0, 0, 0], [0, 1, 1, 2]]])
    samples = np.array([[[0, 0, 0, 1], [0, 1, 2, 2]]])
    found = scored(truth, samples)
    # class 0: 4 of 5, class 1: 1 of 3, class 2: 1 of 2
    assert found["mean_iou"].value == pytest.approx((4 / 5 + 1 / 3 + 1 / 2) / 3)
    assert found["mean_iou"].noise == pytest.approx(5 / 8 / 3) and found["mean_iou"].floor == 1
    assert found["pixel_accuracy"].value == 6 / 8 and found["pixel_accuracy"].noise == 5 / 8
    assert "0: 0.800, 1: 0.333, 2: 0.500" in found["mean_iou"].note


def test_pixels_without_a_class_are_not_counted():
    truth = np.array([[[0, 0, 255, 1]]])
    assert scored(truth, np.array([[[0, 0, 1, 1]]]), ignore=255)["mean_iou"].value == 1
    assert scored(truth, np.array([[[0, 1, 0, 1]]]), ignore=255)["mean_iou"].value == pytest.approx(1 / 2)
