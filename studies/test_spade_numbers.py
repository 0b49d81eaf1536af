"""Tests the numbers of layouts and of styles on images whose numbers are known. That a run draws, running it shows."""

import numpy as np
import pytest

from jaxgen.data import open_source
from jaxgen.files.pictures import open_image
from jaxgen.metrics.analysis.regions import read_regions
from studies.spade import layout_row, style_of, write_picture


@pytest.fixture(scope="module")
def regions():
    return open_source("regions", "test", 16, 3).take(range(80))


def test_true_images_show_their_layouts_and_not_those_of_others(regions):
    seen = read_regions(regions["image"], 6)
    assert layout_row(seen, regions["mask"]) == {"mean IoU": 1.0, "accuracy": 1.0, "uniform": 1.0}
    other = layout_row(seen, np.roll(regions["mask"], 1, axis=0))
    assert max(other.values()) < 0.35
    masks = regions["mask"].copy()
    masks[:, 0] = 9
    assert layout_row(seen, masks, ignore=9)["mean IoU"] == 1
    assert "uniform" not in layout_row(seen[:1], np.arange(256).reshape(1, 16, 16) % 6)


def test_the_style_is_that_of_the_source(regions):
    found = style_of(regions["image"])
    np.testing.assert_allclose(found, regions["style"][:, :2], atol=0.02)


def test_the_picture_has_a_row_for_each_layout(regions, tmp_path):
    write_picture(tmp_path / "rows.png", regions["mask"], [regions["image"], regions["image"]])
    png = open_image((tmp_path / "rows.png").read_bytes(), "png")
    assert png.size == (1 + 3 * (48 + 1), 1 + 8 * (48 + 1))
