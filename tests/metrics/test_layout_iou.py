"""`layout_iou` and its labeller: what is read from images of known layouts, and the numbers of wrong ones."""

from __future__ import annotations

import numpy as np
import pytest

from jaxgen.data import open_source
from jaxgen.errors import UserError
from jaxgen.metrics.analysis.regions import read_regions
from jaxgen.metrics.asked.layout_iou import Hues, LayoutIou
from jaxgen.metrics.base import RunFacts
from jaxgen.metrics.images import EvaluationImages


@pytest.fixture(scope="module")
def regions():
    return open_source("regions", "test", resolution=16, channels=3).take(range(60))


def scores(regions, samples, **options):
    truth = regions["image"]
    images = EvaluationImages(samples, None, truth, truth, None, "regions", asked=regions)
    return LayoutIou(**options).scores(images, None)


@pytest.mark.parametrize("classes", [2, 3, 6, 11])
def test_the_labeller_reads_every_pixel_of_the_true_images(classes):
    batch = open_source(f"regions:{classes}", "test", resolution=(16, 24), channels=3).take(range(40))
    np.testing.assert_array_equal(read_regions(batch["image"], classes), batch["mask"])
    pale = (batch["image"] // 4 + 150).astype(np.uint8)
    assert (read_regions(pale, classes) == batch["mask"]).mean() > 0.95


def test_true_images_have_the_floor_and_others_less(regions):
    right = scores(regions, regions["image"])
    assert list(right) == ["layout_iou", "layout_accuracy", "layout_accuracy_uniform"]
    assert all(score.value == score.floor == 1 and score.noise < 0.3 for score in right.values())
    assert right["layout_accuracy_uniform"].n < 20 < right["layout_iou"].n == 60
    wrong = scores(regions, regions["image"][..., [1, 2, 0]])  # each hue two classes further
    assert all(score.value == 0 for score in wrong.values())


def test_the_numbers_are_those_of_the_pixels(regions):
    samples = regions["image"].copy()
    samples[:, :4] = samples[:, :4][..., [1, 2, 0]]  # a quarter of the pixels
    found = scores(regions, samples)
    assert found["layout_accuracy"].value == found["layout_accuracy_uniform"].value == 0.75
    seen, truth = read_regions(samples, 6), regions["mask"]
    each = [((seen == c) & (truth == c)).sum() / ((seen == c) | (truth == c)).sum() for c in range(6)]
    assert found["layout_iou"].value == pytest.approx(np.mean(each))


def test_pixels_without_a_class_are_not_counted(regions):
    masked = {**regions, "mask": regions["mask"].copy()}
    masked["mask"][:, :4] = 255
    samples = regions["image"].copy()
    samples[:, :4] = 0
    assert scores(masked, samples, ignore=255)["layout_iou"].value == 1


def test_without_a_layout_of_one_class_there_is_no_such_number(regions):
    several = np.array([len(np.unique(mask)) > 1 for mask in regions["mask"]])
    found = scores({name: values[several] for name, values in regions.items()}, regions["image"][several])
    assert "layout_accuracy_uniform" not in found and "layout_iou" in found


def test_what_cannot_be_read_is_refused():
    facts = RunFacts((8, 8, 1), "image", "digits", frozenset({"image", "mask"}), ())
    with pytest.raises(UserError, match="sees images of 3 channels, and these have 1"):
        LayoutIou().check_run(facts)
    with pytest.raises(UserError, match="reads the entry 'mask'"):
        LayoutIou().check_run(RunFacts((8, 8, 3), "image", "digits", frozenset({"image"}), ()))
    with pytest.raises(UserError, match="at least 2 classes"):
        Hues(classes=1)
