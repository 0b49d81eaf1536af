"""Videos in an archive, from the file to what a loss sees."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from jaxgen.data import Loader, open_source
from jaxgen.data.transforms import prepare
from jaxgen.errors import UserError

RNG = np.random.default_rng(0)
VIDEO = RNG.integers(0, 256, (6, 3, 8, 8, 3), dtype=np.uint8)


def opened(tmp_path, split="all", resolution=8, **arrays):
    np.savez(tmp_path / "a.npz", **arrays)
    return open_source(f"npz:{tmp_path / 'a.npz'}", split, resolution, 3)


def test_levels_of_a_video_reach_the_loss_as_floats(tmp_path):
    source = opened(tmp_path, images=VIDEO[:, 0], videos=VIDEO, labels=np.arange(6))
    batch = next(Loader({"": source}, 6, seed=0))
    assert batch["video"].dtype == np.uint8 and batch["video"].shape == (6, 3, 8, 8, 3)
    seen = jax.jit(prepare)(batch, jax.random.key(0))
    assert seen["video"].dtype == np.float32 and abs(float(np.abs(seen["video"]).max()) - 1) < 0.01
    np.testing.assert_allclose(seen["video"], VIDEO[batch["label"]] / 127.5 - 1, atol=1e-6)


@pytest.mark.parametrize("key", ["video", "videos"])
def test_without_images_the_first_frame_is_the_image(tmp_path, key):
    source = opened(tmp_path, **{key: VIDEO})
    assert (source.arrays["image"] == VIDEO[:, 0]).all() and (source.arrays["video"] == VIDEO).all()
    assert "video uint8 [3, 8, 8, 3]; each image is the first frame of its video" in source.summary()
    split = opened(tmp_path, "train", **{f"train_{key}": VIDEO[2:], f"test_{key}": VIDEO[:2]})
    assert (split.arrays["image"] == VIDEO[2:, 0]).all() and len(split) == 4


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-1, 1), (0, 255)])
def test_floats_of_a_video_are_of_one_range_with_its_images(tmp_path, low, high):
    floats = (VIDEO / 255 * (high - low) + low).astype(np.float32)
    source = opened(tmp_path, video=floats)
    assert (source.arrays["video"] == VIDEO).all() and (source.arrays["image"] == VIDEO[:, 0]).all()


def test_other_arrays_of_five_axes_are_numbers(tmp_path):
    source = opened(tmp_path, images=VIDEO[:, 0], table=VIDEO[..., :2])
    assert source.arrays["table"].dtype == np.int32
    assert opened(tmp_path, images=VIDEO[:, 0], views=VIDEO).arrays["views"].dtype == np.uint8


@pytest.mark.parametrize(
    ("arrays", "resolution", "told"),
    [
        ({"video": VIDEO.transpose(0, 1, 4, 2, 3)}, 8, r"'video' of .* has shape \[6, 3, 3, 8, 8\]; \[N, F, H, W, C\]"),
        ({"video": VIDEO[0]}, 8, r"has shape \[3, 8, 8, 3\]"),
        ({"video": VIDEO[:4], "images": VIDEO[:, 0]}, 8, "has 6 images but 4 videos"),
        ({"video": VIDEO}, 4, "holds 8x8 images and 'video' of the same size, which cannot be resized alike"),
    ],
)
def test_videos_that_do_not_fit(tmp_path, arrays, resolution, told):
    with pytest.raises(UserError, match=told):
        opened(tmp_path, resolution=resolution, **arrays)
