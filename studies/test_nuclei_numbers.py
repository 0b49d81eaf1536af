"""Tests the numbers of nuclei on windows whose objects are known."""

from __future__ import annotations

import numpy as np
import pytest

from jaxgen.errors import UserError
from jaxgen.metrics.analysis.instances import layers_of
from studies.nuclei import Data, measured, scaled, windows


@pytest.fixture
def file(tmp_path):
    """Two images of 16 pixels with one square over all four windows, and one with a square in a window."""
    maps = np.zeros((3, 16, 16), np.uint8)
    maps[:2, 4:12, 4:12] = 7
    maps[2, 1:6, 9:14] = 1
    images = np.where(maps[..., None] > 0, [200, 180, 160], [10, 20, 30]).astype(np.uint8)
    path = tmp_path / "nuclei.npz"
    np.savez(path, images=images, instances=maps, modality=np.array([0, 2, 0]), is_test=np.array([False, False, True]))
    return path


def test_windows_keep_their_places_and_cut_objects_are_one_in_each(file):
    data = Data(str(file), 8)
    assert data.images.shape == (12, 8, 8, 3) and data.objects.shape == (12, 8, 8)
    np.testing.assert_array_equal(data.stain, [0] * 4 + [2] * 4 + [0] * 4)
    np.testing.assert_array_equal(data.test, [False] * 8 + [True] * 4)
    assert [int(one.max()) for one in data.objects] == [1] * 8 + [0, 1, 0, 0]
    assert data.objects[0, 4:, 4:].all() and data.objects[3, :4, :4].all() and not data.objects[0, :4].any()
    x = np.arange(2 * 4 * 6).reshape(2, 4, 6)
    np.testing.assert_array_equal(windows(x, 2)[4], x[0, 2:4, 2:4])
    few = data.few(1, seed=0)
    assert few.sum() == 4 and len(np.unique(data.image[few])) == 1 and not (few & data.test).any()


def test_images_are_scaled_by_their_own_range():
    dark = np.random.default_rng(0).integers(10, 40, (2, 32, 32, 3)).astype(np.uint8)
    found = scaled(dark)
    assert found.min() == 0 and found.max() == 255
    np.testing.assert_allclose(scaled(found), found, atol=3)
    assert not scaled(np.full((1, 4, 4, 3), 9, np.uint8)).any()


def test_true_layers_have_full_marks_and_missing_objects_cost_them():
    pytest.importorskip("skimage")
    truth = np.zeros((2, 32, 32), np.int32)
    truth[:, 4:14, 4:14], truth[:, 18:28, 16:26] = 1, 2
    layers = np.stack([layers_of(one) for one in truth])
    assert measured(layers, truth) == {"mean_iou": 1, "aji": 1, "ap_50": 1, "ap": 1}
    half = layers * (truth != 2)
    found = measured(half, truth)
    assert found["ap_50"] == found["ap"] == found["aji"] == 0.5 and 0.5 < found["mean_iou"] < 1
    assert measured(0 * layers, truth)["aji"] == 0


def test_what_is_no_such_file_is_refused(file, tmp_path):
    with pytest.raises(UserError, match="does not divide the sides"):
        Data(str(file), 7)
    np.savez(tmp_path / "other.npz", images=np.zeros((1, 8, 8, 3), np.uint8))
    with pytest.raises(UserError, match="has no 'instances'; it has images"):
        Data(str(tmp_path / "other.npz"), 8)
