"""Transforms on the device."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.arrays import to_uint8
from jaxgen.data import transforms
from jaxgen.errors import UserError

augment = jax.jit(transforms.augment, static_argnums=(2, 3))


def test_every_level_survives_the_round_trip_and_spans_the_range():
    levels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    batch = transforms.to_float({"image": levels, "label": np.array([3], np.int32)})
    assert batch["image"].dtype == jnp.float32 and batch["label"].dtype == jnp.int32
    assert (float(batch["image"].min()), float(batch["image"].max())) == (-1.0, 1.0)
    assert (to_uint8(batch["image"]) == levels).all()


def test_to_uint8_clips_and_takes_the_nearest_level():
    step = 1 / 127.5
    values = jnp.array([-2.0, 5.0, -1 + 10.4 * step, -1 + 10.6 * step])
    assert to_uint8(values).tolist() == [0, 255, 10, 11]


def numbered_pixels(count=6, size=8):
    """Images whose every pixel is unlike all others, and a mask with the same numbers."""
    pixels = np.arange(count * size * size, dtype=np.int32).reshape(count, size, size)
    return {
        "image": pixels[..., None].astype(np.float32),
        "mask": pixels,
        "label": np.arange(count),
        "embedding": np.random.default_rng(0).normal(size=(count, 3, 5)),
    }


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
        windows = [(y, x) for y in range(3) for x in range(3) if (padded[y : y + 8, x : x + 8] == after).all()]
        assert len(windows) == 1
        shifts.add(windows[0])
    assert len(shifts) == 9


def test_one_image_does_not_depend_on_its_neighbours():
    batch = {"image": numbered_pixels()["image"]}
    whole = augment(jax.random.key(3), batch, True, 2)["image"]
    part = augment(jax.random.key(3), {"image": batch["image"][4:]}, True, 2, index=jnp.array([4, 5]))["image"]
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


def related(count=5, frames=3, size=6, seed=0):
    """Random pictures, and entries that are known functions of each of their pixels."""
    image = np.random.default_rng(seed).integers(0, 200, (count, size, size, 3), dtype=np.uint8)
    video = np.stack([image + frame for frame in range(frames)], axis=1).astype(np.uint8)
    grey = image.sum(-1, dtype=np.int32)
    return {"image": image, "condition": 255 - image, "hint": image[..., :1].astype(np.float32), "mask": grey,
            "video": video, "label": np.arange(count, dtype=np.int32)}  # fmt: skip


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("flip", "crop"), [(True, 0), (False, 2), (True, 2)])
def test_what_belongs_to_an_image_still_does_afterwards(flip, crop, seed):
    before = related(seed=seed)
    after = {name: np.asarray(x) for name, x in augment(jax.random.key(seed), before, flip, crop).items()}
    assert {name: (x.shape, x.dtype) for name, x in after.items()} == {n: (x.shape, x.dtype) for n, x in before.items()}
    assert (after["image"] != before["image"]).any() and (after["label"] == before["label"]).all()
    assert (after["condition"] == 255 - after["image"]).all()
    assert (after["hint"] == after["image"][..., :1]).all()
    assert (after["mask"] == after["image"].sum(-1, dtype=np.int32)).all()
    for frame in range(3):
        assert (after["video"][:, frame] == after["image"] + frame).all()


def test_a_mirrored_copy_moves_the_same_entries_as_a_flip():
    before = related(count=40)
    after, turned = augment(jax.random.key(0), before, True, 0), transforms.mirrored(before)
    moved = np.asarray((after["image"] != before["image"]).any((1, 2, 3)))
    assert 0 < moved.sum() < 40
    for name, values in turned.items():
        np.testing.assert_array_equal(np.asarray(after[name])[moved], values[moved])


def test_a_small_condition_is_flipped_with_its_image():
    image = np.arange(6 * 8 * 8, dtype=np.float32).reshape(6, 8, 8, 1)
    small = image[:, ::2, ::2] + image[:, 1::2, 1::2]  # of each block of four pixels, the first and the last
    after = augment(jax.random.key(0), {"image": image, "condition": small}, True, 0)
    image = np.asarray(after["image"])
    flipped = (image[:, :, 0] > image[:, :, 1]).all((1, 2))
    assert 0 < flipped.sum() < 6
    wanted = {False: image[:, ::2, ::2] + image[:, 1::2, 1::2], True: image[:, ::2, 1::2] + image[:, 1::2, ::2]}
    for i, turned in enumerate(flipped.tolist()):
        np.testing.assert_array_equal(after["condition"][i], wanted[turned][i])


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("camera", np.zeros((2, 25)), "data with 'camera': a mirrored or shifted picture is one of another camera"),
        ("b_camera", np.zeros((2, 25)), "data with 'b_camera'"),
        ("moments", np.zeros((2, 2, 2, 8)), "data with 'moments': the latents of a mirrored image are others"),
        ("mask", np.zeros((2, 4, 4), np.int32), r"entry 'mask', int32 \[4, 4\], is not of the image's size"),
        ("depth", np.zeros((2, 8, 8)), r"entry 'depth', float64 \[8, 8\], is of the image's size"),
    ],
)
@pytest.mark.parametrize("crop", [0, 1])
def test_what_may_not_belong_to_the_image_is_refused(name, value, told, crop):
    batch = {"image": np.zeros((2, 8, 8, 1)), name: value}
    with pytest.raises(UserError, match=told):
        transforms.augment(jax.random.key(0), batch, True, crop)
    assert transforms.augment(jax.random.key(0), batch, False, 0).keys() == batch.keys()
