"""Transforms on the device."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.data import transforms
from jaxgen.errors import UserError

augment = jax.jit(transforms.augment, static_argnums=(2, 3))


def test_every_level_survives_the_round_trip_and_spans_the_range():
    levels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    batch = transforms.to_float({"image": levels, "label": np.array([3], np.int32)})
    assert batch["image"].dtype == jnp.float32 and batch["label"].dtype == jnp.int32
    assert (float(batch["image"].min()), float(batch["image"].max())) == (-1.0, 1.0)
    assert (transforms.to_uint8(batch["image"]) == levels).all()


def test_to_uint8_clips_and_takes_the_nearest_level():
    step = 1 / 127.5
    values = jnp.array([-2.0, 5.0, -1 + 10.4 * step, -1 + 10.6 * step])
    assert transforms.to_uint8(values).tolist() == [0, 255, 10, 11]


def numbered_pixels(count=6, size=8):
    """Images whose every pixel is unlike all others, and a mask with the same numbers."""
    pixels = np.arange(count * size * size, dtype=np.int32).reshape(count, size, size)
    return {"image": pixels[..., None].astype(np.float32), "mask": pixels, "label": np.arange(count),
            "embedding": np.random.default_rng(0).normal(size=(count, 3, 5))}


def test_image_and_mask_move_together_and_nothing_else_moves():
    batch = numbered_pixels()
    moved = augment(jax.random.key(0), batch, True, 2)
    assert (moved["image"][..., 0] == moved["mask"]).all()
    assert (moved["mask"] != batch["mask"]).any()
    assert (moved["label"] == batch["label"]).all()
    np.testing.assert_allclose(moved["embedding"], batch["embedding"], rtol=1e-6)


def test_a_flip_mirrors_about_half_of_the_images_and_only_mirrors():
    batch = {"image": numbered_pixels(count=200)["image"]}
    moved = np.asarray(augment(jax.random.key(1), batch, True, 0)["image"])
    same = (moved == batch["image"]).all(axis=(1, 2, 3))
    mirrored = (moved == batch["image"][:, :, ::-1]).all(axis=(1, 2, 3))
    assert (same ^ mirrored).all()
    assert 70 < mirrored.sum() < 130


def test_a_crop_is_a_window_of_the_reflected_image_and_reaches_every_shift():
    batch = {"mask": numbered_pixels(count=400)["mask"]}
    moved = np.asarray(augment(jax.random.key(2), batch, False, 1)["mask"])
    shifts = set()
    for before, after in zip(batch["mask"], moved, strict=True):
        padded = np.pad(before, 1, mode="reflect")
        windows = [(y, x) for y in range(3) for x in range(3) if (padded[y:y + 8, x:x + 8] == after).all()]
        assert len(windows) == 1
        shifts.add(windows[0])
    assert len(shifts) == 9


def test_one_image_does_not_depend_on_its_neighbours():
    batch = {"image": numbered_pixels()["image"]}
    whole = augment(jax.random.key(3), batch, True, 2)["image"]
    part = augment(
        jax.random.key(3), {"image": batch["image"][4:]}, True, 2, index=jnp.array([4, 5])
    )["image"]
    assert (whole[4:] == part).all()


def test_without_flip_and_crop_nothing_happens():
    batch = numbered_pixels()
    kept = transforms.augment(jax.random.key(0), batch, False, 0)
    assert all(kept[key] is batch[key] for key in batch)


def test_crops_of_unequal_sizes_are_refused():
    batch = {"image": np.zeros((2, 8, 8, 1)), "condition": np.zeros((2, 4, 4, 1))}
    with pytest.raises(UserError, match="condition 4x4"):
        transforms.augment(jax.random.key(0), batch, True, 1)
    with pytest.raises(UserError, match="crop by 8"):
        transforms.augment(jax.random.key(0), {"image": batch["image"]}, True, 8)
