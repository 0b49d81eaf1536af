"""The two resizes of the FID: what each does to images whose resized form is known."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from jaxgen.errors import UserError
from jaxgen.metrics.networks.resize import centred, clean, legacy

resize_legacy = jax.jit(legacy, static_argnums=1)


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize("size", [(299, 299), (21, 40), (5, 7)])
def test_legacy_of_a_ramp_is_the_ramp_without_half_pixels(size):
    """Source pixel i lies at i * out / in of the result; beyond the last one its value stays."""
    rows, columns = np.arange(16) * 5, np.arange(12) * 3
    image = (rows[:, None] + columns).astype(np.uint8)[None, :, :, None]
    y, x = (np.minimum(np.arange(n) * m / n, m - 1) for n, m in zip(size, (16, 12), strict=True))
    np.testing.assert_allclose(resize_legacy(image, size)[0, :, :, 0], 5 * y[:, None] + 3 * x, atol=1e-4)


def test_legacy_takes_every_third_pixel_of_a_third_and_clean_does_not():
    """A pattern that vanishes in the mean: the first FID sees its white pixels, clean-FID sees grey."""
    image = np.zeros((1, 30, 30, 1), np.uint8)
    image[:, ::3, ::3] = 255
    assert (np.asarray(resize_legacy(image, (10, 10))) == 255).all()
    inner = clean(image, (10, 10))[0, 2:-2, 2:-2]
    np.testing.assert_allclose(inner, 255 / 9, rtol=0.2)


@pytest.mark.parametrize("resize", [resize_legacy, clean])
def test_an_image_of_that_size_stays(resize):
    x = noise(2, 24, 17, 3)
    np.testing.assert_array_equal(resize(x, (24, 17)), x)


@pytest.mark.parametrize("resize", [resize_legacy, clean])
@pytest.mark.parametrize("size", [(7, 9), (64, 50)])
def test_constants_stay_and_images_do_not_mix(resize, size):
    x = noise(3, 1, 1, 2)
    constant = np.broadcast_to(x, (3, 20, 31, 2))
    found = np.asarray(resize(constant, size))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, np.broadcast_to(x, (3, *size, 2)), atol=1e-3)
    y = noise(3, 20, 31, 2)
    np.testing.assert_array_equal(np.asarray(resize(y, size))[1:2], resize(y[1:2], size))


def test_clean_is_not_rounded_and_stays_in_range():
    x = np.where(noise(1, 10, 10, 3) > 127, 255, 0).astype(np.uint8)
    found = clean(x, (25, 31))
    assert found.min() == 0 and found.max() == 255 and (found != np.round(found)).any()
    turned = clean(x.transpose(0, 2, 1, 3), (31, 25)).transpose(0, 2, 1, 3)
    np.testing.assert_allclose(found, turned, atol=1)  # Pillow resizes rows first, and may overshoot between


def test_clean_wants_eight_bit_images():
    with pytest.raises(UserError, match="uint8"):
        clean(np.zeros((1, 4, 4, 3), np.float32))
    with pytest.raises(UserError, match=r"\(4, 4, 3\)"):
        clean(np.zeros((4, 4, 3), np.uint8))


def test_centred_is_exact():
    x = np.arange(256, dtype=np.uint8)
    np.testing.assert_array_equal(centred(x), (np.arange(256) - 128) / 128)
