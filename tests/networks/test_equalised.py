"""Tests of the filters, of the layers with an equalised learning rate, and of the deviation within a batch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.signal

from jaxgen.errors import UserError
from jaxgen.networks.gans.equalised import EqualConv, EqualDense, append_deviation, pixel_norm
from jaxgen.networks.gans.upfirdn import WIDE, blurred, blurred_down_conv, blurred_up_conv, blurred_upsample, upfirdn


def images(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def along(taps, x, up, down):
    """Resamples one image [H, W, C] with scipy, along both axes."""
    h = np.array(taps) / sum(taps)
    for axis in (0, 1):
        x = scipy.signal.upfirdn(h, x, up, down, axis=axis)
    return x


@pytest.mark.parametrize(
    "taps, up, down", [(WIDE, 1, 1), (WIDE, 2, 1), (WIDE, 1, 2), ((1, 2, 4), 3, 2), ((1.0, 5.0), 3, 1)]
)
def test_filters_are_scipys(taps, up, down):
    x = images(2, 6, 5, 3)
    # scipy keeps what the whole filter and a part of it meets, without the zeros behind the last value
    got = upfirdn(x, taps, up, down, (len(taps) - 1, len(taps) - up))
    expected = np.stack([along(taps, image.astype(np.float64), up, down) for image in x])
    np.testing.assert_allclose(got, expected, atol=1e-6)


@pytest.mark.parametrize(
    "taps, up, down, padding",
    [(WIDE, 1, 1, (2, 1)), (WIDE, 2, 1, (2, 1)), (WIDE, 1, 2, (1, 1)), (WIDE, 1, 1, (-1, -1)), (WIDE, 1, 1, (5, 6)),
     ((1.0, 2.0, 4.0), 3, 2, (0, 4)), ((1.0, 5.0), 3, 1, (1, -2)), ((3.0,), 2, 3, (0, 0))],
)  # fmt: skip
def test_gradients_are_the_transposed_matrix(taps, up, down, padding):
    """The columns of the matrix of one axis are what single pixels become, without a derivative."""
    axis = lambda x: upfirdn(x, taps, up, down, padding)  # noqa: E731
    pixels = jnp.eye(42).reshape(42, 7, 6, 1)
    matrix = np.asarray(axis(pixels)).reshape(42, -1)
    y, back = jax.vjp(axis, images(1, 7, 6, 1))
    dy = images(*y.shape)
    (dx,) = back(dy)
    np.testing.assert_allclose(dx.reshape(-1), matrix @ dy.reshape(-1), atol=1e-5)
    again = jax.grad(lambda dy: (back(dy)[0] * pixels[9]).sum())(dy)  # the gradient of the gradient is the filter
    np.testing.assert_allclose(again.reshape(-1), matrix[9], atol=1e-6)


def test_negative_padding_cuts_pixels_off():
    x = images(1, 7, 7, 2)
    np.testing.assert_allclose(upfirdn(x, WIDE, padding=(-1, -2)), upfirdn(x[:, 1:-2, 1:-2], WIDE), atol=1e-6)


def test_resampling_keeps_a_constant_inside():
    x = jnp.ones((1, 8, 8, 1))
    np.testing.assert_allclose(blurred_upsample(x)[:, 2:-2, 2:-2], 1.0, atol=1e-6)
    np.testing.assert_allclose(blurred(x)[:, 1:-1, 1:-1], 1.0, atol=1e-6)


def correlated(x, kernel):
    """Convolves one image [H, W, C], as networks do, by scipy."""
    pairs = [
        [scipy.signal.correlate2d(x[..., c], kernel[..., c, d], "full") for c in range(x.shape[-1])]
        for d in range(kernel.shape[-1])
    ]
    return np.stack([sum(part) for part in pairs], -1)


def test_blurred_convolutions_are_their_steps_one_by_one():
    x, kernel = images(2, 6, 4, 3), images(3, 3, 3, 2)
    taps = np.outer(WIDE, WIDE) / 64
    filtered = lambda y: np.stack([scipy.signal.convolve2d(y[..., c], taps) for c in range(y.shape[-1])], -1)  # noqa: E731
    for image, up, down in zip(x, blurred_up_conv(x, kernel), blurred_down_conv(x, kernel), strict=True):
        zeros = np.zeros((12, 8, 3))
        zeros[::2, ::2] = image
        full = 4 * filtered(correlated(zeros, kernel))  # pixel 2 i lies at 2 i + 1 + 3/2, half a pixel off
        np.testing.assert_allclose(up, full[2:14, 2:10], atol=1e-5)
        np.testing.assert_allclose(down, correlated(filtered(image), kernel)[3:-1:2, 3:-1:2][:3, :2], atol=1e-5)
    point = kernel[:1, :1]
    np.testing.assert_allclose(blurred_up_conv(x, point), blurred_upsample(x @ point[0, 0]), atol=1e-5)


def test_an_equalised_layer_keeps_the_variance_and_learns_at_its_own_speed():
    x = jax.random.normal(jax.random.key(0), (512, 64))
    layer = EqualDense(128, multiplier=0.01, bias=1.0)
    variables = layer.init(jax.random.key(1), x)
    y = layer.apply(variables, x)
    assert abs(float(y.mean()) - 1) < 0.05 and abs(float(y.std()) - 1) < 0.05
    assert abs(float(variables["params"]["kernel"].std()) - 100) < 2
    # a step of one size in all parameters, as Adam's, moves the result by a hundredth of a plain layer's
    moved = layer.apply(jax.tree.map(lambda leaf: leaf + 0.1, variables), x) - y
    plain = EqualDense(128)
    start = plain.init(jax.random.key(1), x)
    whole = plain.apply(jax.tree.map(lambda leaf: leaf + 0.1, start), x) - plain.apply(start, x)
    np.testing.assert_allclose(moved, 0.01 * whole, atol=1e-4)
    pixels = jax.random.normal(jax.random.key(0), (8, 8, 8, 16))
    out, _ = EqualConv(32, gain=2.0).init_with_output(jax.random.key(1), pixels)
    assert abs(float(out[:, 1:-1, 1:-1].std()) - 2) < 0.1


def test_pixel_norm_leaves_vectors_of_mean_square_one():
    np.testing.assert_allclose(jnp.square(pixel_norm(images(2, 3, 3, 8))).mean(-1), 1.0, atol=1e-5)


def test_deviation_is_that_of_images_a_group_apart():
    x = images(6, 2, 2, 4)
    got = np.asarray(append_deviation(x, group=4, features=2))  # four do not divide six: groups of three
    assert got.shape == (6, 2, 2, 6)
    np.testing.assert_array_equal(got[..., :4], x)
    for first in (0, 1):
        deviation = x[[first, first + 2, first + 4]].std(axis=0)
        for part in (0, 1):
            expected = deviation[..., 2 * part : 2 * part + 2].mean()
            np.testing.assert_allclose(got[first::2, ..., 4 + part], expected, rtol=1e-4)
    assert np.isfinite(jax.grad(lambda x: append_deviation(x).sum())(jnp.ones((4, 2, 2, 2)))).all()


def test_impossible_filters_are_refused():
    with pytest.raises(UserError, match="does not fit"):
        upfirdn(images(1, 2, 2, 1), WIDE)
    with pytest.raises(UserError, match="factors of 1"):
        upfirdn(images(1, 8, 8, 1), WIDE, down=0)
    with pytest.raises(UserError, match="sum that is not 0"):
        upfirdn(images(1, 8, 8, 1), (1.0, -1.0))
    with pytest.raises(UserError, match="1x1 or 3x3"):
        blurred_up_conv(images(1, 4, 4, 1), images(5, 5, 1, 1))
