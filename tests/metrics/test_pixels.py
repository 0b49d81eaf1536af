"""PSNR, SSIM and errors: identities, bounds, closed forms. That they are scikit-image's is a parity test."""

import numpy as np
import pytest

from jaxgen.errors import UserError
from jaxgen.metrics.pairs.pixels import absolute_error, psnr, squared_error, ssim

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (3, 16, 20, 3), dtype=np.uint8)
OTHERS = RNG.integers(0, 256, (3, 16, 20, 3), dtype=np.uint8)
GREY = np.full((1, 16, 16, 1), 100, np.uint8)


@pytest.mark.parametrize("window", ["gaussian", "uniform"])
def test_equal_images(window):
    np.testing.assert_allclose(ssim(IMAGES, IMAGES, window), 1, rtol=1e-12)
    assert np.isposinf(psnr(IMAGES, IMAGES)).all()
    assert (absolute_error(IMAGES, IMAGES) == 0).all() and (squared_error(IMAGES, IMAGES) == 0).all()


def test_one_known_difference():
    other = GREY.copy()
    other[0, 3, 5, 0] -= 80  # one of 256 pixels; a difference of uint8 would wrap round
    assert absolute_error(GREY, other) == pytest.approx(80 / 256) == absolute_error(other, GREY)
    assert squared_error(GREY, other) == pytest.approx(80**2 / 256)
    assert psnr(GREY, other) == pytest.approx(10 * np.log10(255**2 / 25))


def test_black_against_white_is_the_lowest_psnr():
    assert psnr(np.zeros_like(GREY), np.full_like(GREY, 255)) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("window", ["gaussian", "uniform"])
def test_flat_images_leave_the_luminance_term_alone(window):
    """Without variance SSIM is (2 a b + c1) / (a^2 + b^2 + c1)."""
    c1 = (0.01 * 255) ** 2
    other = np.full_like(GREY, 50)
    assert ssim(GREY, other, window) == pytest.approx((2 * 100 * 50 + c1) / (100**2 + 50**2 + c1), rel=1e-10)


@pytest.mark.parametrize("window", ["gaussian", "uniform"])
def test_ssim_is_symmetric_bounded_and_falls_with_noise(window):
    np.testing.assert_allclose(ssim(IMAGES, OTHERS, window), ssim(OTHERS, IMAGES, window), rtol=1e-12)
    negative = ssim(IMAGES, 255 - IMAGES, window)
    assert (negative < 0).all() and (negative >= -1).all()
    smooth = np.tile(np.linspace(40, 200, 20), (1, 16, 1))[..., None]
    noise = RNG.normal(size=smooth.shape)
    levels = [ssim(smooth.astype(np.uint8), (smooth + s * noise).astype(np.uint8), window)[0] for s in (0, 2, 8, 30)]
    assert levels == sorted(levels, reverse=True) and levels[0] == pytest.approx(1)


@pytest.mark.parametrize("metric", [absolute_error, squared_error, psnr, ssim])
def test_one_number_per_pair_that_depends_on_that_pair_and_every_channel_alike(metric):
    values = metric(IMAGES, OTHERS)
    assert values.shape == (3,) and values.dtype == np.float64
    np.testing.assert_allclose(values[1:2], metric(IMAGES[1:2], OTHERS[1:2]), rtol=1e-12)
    np.testing.assert_allclose(metric(IMAGES[..., ::-1], OTHERS[..., ::-1]), values, rtol=1e-12)


@pytest.mark.parametrize("metric", [absolute_error, squared_error, psnr, ssim])
def test_bad_images_are_refused(metric):
    with pytest.raises(UserError, match="uint8"):
        metric(IMAGES / 255, OTHERS / 255)
    with pytest.raises(UserError, match="equal shape"):
        metric(IMAGES, OTHERS[:2])


def test_windows():
    with pytest.raises(UserError, match="11x11"):
        ssim(IMAGES[:, :8, :8], OTHERS[:, :8, :8])
    assert ssim(IMAGES[:, :8, :8], OTHERS[:, :8, :8], "uniform").shape == (3,)
    with pytest.raises(UserError, match="gaussian, uniform"):
        ssim(IMAGES, OTHERS, "box")
