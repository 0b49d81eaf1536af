"""Differentiable augmentation: what each kind does, on average and at its bounds, and that gradients pass."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.adversarial.augment import DiffAugment
from jaxgen.errors import UserError

OFF = dict(brightness=0.0, saturation=0.0, contrast=0.0, translation=0.0, cutout=0.0)
SIZE = 8
IMAGE = jnp.asarray(np.random.default_rng(0).uniform(-1, 1, (SIZE, SIZE, 3)), jnp.float32)


def only(**options):
    return jax.jit(DiffAugment(**{**OFF, **options}).__call__)


def keys(count, seed=0):
    return jax.random.split(jax.random.key(seed), count)


def many(augment, image=IMAGE, count=4000):
    return np.asarray(augment(keys(count), jnp.broadcast_to(image, (count, *image.shape))))


def test_without_any_kind_nothing_happens():
    np.testing.assert_array_equal(only()(keys(3), IMAGE[None].repeat(3, 0)), IMAGE[None].repeat(3, 0))


def test_brightness_moves_all_values_alike():
    change = many(only(brightness=0.5)) - IMAGE
    assert change.std(axis=(1, 2, 3)).max() < 1e-6
    moved = change.mean(axis=(1, 2, 3))
    assert abs(moved.mean()) < 0.02 and 0.49 < moved.max() < 0.5001 and -0.5001 < moved.min() < -0.49


@pytest.mark.parametrize(("kind", "axes", "reach"), [("saturation", 2, 1.0), ("contrast", (0, 1, 2), 0.5)])
def test_distances_to_the_mean_are_scaled(kind, axes, reach):
    result, image = many(only(**{kind: reach})), np.asarray(IMAGE)
    apart = image - image.mean(axis=axes, keepdims=True)
    factors = (result * apart).sum(axis=(1, 2, 3)) / (apart**2).sum()
    np.testing.assert_allclose(result, image + (factors - 1)[:, None, None, None] * apart, atol=1e-5)
    assert abs(factors.mean() - 1) < 4 * reach / np.sqrt(3 * len(factors))  # in expectation nothing changes
    assert 1 - reach - 1e-5 < factors.min() < 1 - 0.95 * reach and 1 + 0.95 * reach < factors.max() < 1 + reach + 1e-5


def test_saturation_leaves_grey_images():
    grey = IMAGE[..., :1]
    np.testing.assert_allclose(many(only(saturation=1.0), grey, 10), grey[None].repeat(10, 0), atol=1e-6)


def test_translation_shifts_by_whole_pixels_evenly_and_fills_with_zero():
    augment = only(translation=0.25)
    dot = jnp.zeros((SIZE, SIZE, 1)).at[4, 3, 0].set(1.0)
    where = np.argwhere(many(augment, dot)[..., 0] == 1)
    assert len(where) == 4000  # none is lost, none is spread
    shifts = where[:, 1:] - [4, 3]
    for axis in range(2):
        counts = np.bincount(shifts[:, axis] + 2, minlength=5)
        assert len(counts) == 5 and np.abs(counts - 800).max() < 5 * np.sqrt(800)
    assert abs(np.corrcoef(shifts.T)[0, 1]) < 0.08
    ones = many(augment, jnp.ones((SIZE, SIZE, 1)), 500)[..., 0]
    assert set(np.unique(ones)) == {0, 1}
    rows, columns = ones.max(2).sum(1), ones.max(1).sum(1)
    np.testing.assert_array_equal(ones.sum((1, 2)), rows * columns)
    assert rows.min() == SIZE - 2 and rows.max() == SIZE


@pytest.mark.parametrize(("share", "length"), [(0.5, 4), (0.4, 3)])
def test_cutout_sets_one_rectangle_to_zero(share, length):
    cut = many(only(cutout=share), jnp.ones((SIZE, SIZE, 2)))
    assert (cut[..., 0] == cut[..., 1]).all() and set(np.unique(cut)) == {0, 1}
    gone = 1 - cut[..., 0]
    rows, columns = gone.max(2), gone.max(1)
    np.testing.assert_array_equal(gone, rows[:, :, None] * columns[:, None, :])
    for side in (rows, columns):
        assert (np.abs(np.diff(side, axis=1)).sum(1) <= 2).all()  # in one piece
        assert side.sum(1).max() == length and side.sum(1).min() >= length // 2  # its centre is in the image
        middle = side[:, 3:5].mean(0)  # a middle pixel is hidden as often as any place within reach
        np.testing.assert_allclose(middle, length / (SIZE + 1 - length % 2), atol=0.04)


def test_gradients_reach_the_images_through_what_is_left():
    augment = DiffAugment()
    images = jnp.broadcast_to(IMAGE, (16, *IMAGE.shape))
    gradient = np.asarray(jax.jit(jax.grad(lambda x: jnp.sin(augment(keys(16), x)).sum()))(images))
    assert np.isfinite(gradient).all() and (np.abs(gradient).max(axis=(1, 2, 3)) > 0.1).all()


def test_a_cut_pixel_neither_shows_nor_learns():
    augment = DiffAugment(**{**OFF, "cutout": 0.5})
    images = jnp.broadcast_to(IMAGE, (16, *IMAGE.shape))
    result, pull = jax.jit(lambda x: (augment(keys(16), x), jax.grad(lambda x: augment(keys(16), x).sum())(x)))(images)
    np.testing.assert_array_equal(np.asarray(result) == 0, np.asarray(pull) == 0)
    assert 0 < (np.asarray(result) == 0).mean() < 0.5


def test_the_gradient_is_that_of_finite_differences():
    augment = DiffAugment()
    with jax.enable_x64(True):
        x, direction = (jnp.asarray(np.random.default_rng(i).normal(size=(2, 4, 4, 3))) for i in range(2))
        ahead = jax.jit(jax.value_and_grad(lambda size: (augment(keys(2), x + size * direction) ** 3).sum()))
        numeric = (ahead(1e-5)[0] - ahead(-1e-5)[0]) / 2e-5
        assert float(ahead(0.0)[1]) == pytest.approx(float(numeric), rel=1e-7)


def test_an_image_depends_on_its_key_and_not_on_its_batch():
    augment = jax.jit(DiffAugment().__call__)
    images = jnp.asarray(np.random.default_rng(3).normal(size=(4, SIZE, SIZE, 3)), jnp.float32)
    together = np.asarray(augment(keys(4), images))
    among_others = np.asarray(augment(keys(4)[jnp.array([2, 2, 0, 1])], images[jnp.array([2, 0, 1, 3])]))
    np.testing.assert_allclose(together[2], among_others[0], atol=1e-6)
    again = np.asarray(augment(keys(4, seed=9), images))
    assert (np.abs(together - again).max(axis=(1, 2, 3)) > 0.01).all()  # real and fake: own draws


def test_leaving_one_kind_out_changes_no_other_draw():
    dot = jnp.zeros((SIZE, SIZE, 1)).at[4, 3, 0].set(1.0)
    alone = many(only(translation=0.25), dot, 50)
    together = many(only(translation=0.25, brightness=1e-6), dot, 50)
    np.testing.assert_allclose(alone, together, atol=1e-5)


@pytest.mark.parametrize("kind", [field.name for field in dataclasses.fields(DiffAugment)])
def test_bad_strengths_are_refused(kind):
    with pytest.raises(UserError, match=kind):
        DiffAugment(**{kind: 1.5})
