"""Upsamples, filters and downsamples images [B, H, W, C] by short separable filters, with and without a convolution.

A filter is a tuple of taps for one axis, applied along height and width alike, and scaled to the sum 1. Its taps are
constants of the program: each axis is a sum of a few shifted images, in the phases of the result, so that no product
with an inserted zero is computed. The gradient is the same operation with the taps in reverse order, so that
derivatives of every order are sums of shifts too; forward mode (`jax.jvp`) raises a TypeError.

    larger = blurred_upsample(images)              # StyleGAN2's skip connections (Karras et al. 2020a, appendix B)
    larger = blurred_up_conv(images, kernel)       # its convolutions that double the side
    smaller = blurred_down_conv(images, kernel)    # and those of its discriminator that halve it
"""

from __future__ import annotations

import functools
import operator

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Float

from jaxgen.arrays import Array
from jaxgen.errors import UserError
from jaxgen.networks.layers.convolution import pointwise
from jaxgen.networks.layers.strided import image_gradient, trilinear_conv

Taps = tuple[float, ...]

WIDE: Taps = (1.0, 3.0, 3.0, 1.0)  # StyleGAN2
NARROW: Taps = (1.0, 2.0, 1.0)  # StyleGAN


def upfirdn(
    x: Float[Array, "B H W C"],
    taps: Taps,
    up: int = 1,
    down: int = 1,
    padding: tuple[int, int] = (0, 0),
    gain: float = 1.0,
) -> Float[Array, "B H2 W2 C"]:
    """Inserts zeros, pads, convolves with a filter and keeps every `down`-th value, along height and width.

    Along each axis of n values, `up - 1` zeros follow every value, `padding` zeros are added before and after (a
    negative number cuts values off), the filter is convolved where it fits, and every `down`-th result is kept, the
    first one first: (n up + before + after - taps) // down + 1 values.

    Args:
      x: the images.
      taps: the filter; it is scaled to the sum 1.
      up: the factor by which the side grows.
      down: the factor by which it shrinks afterwards.
      padding: zeros before and after each axis.
      gain: what the result is multiplied by, in all; up**2 keeps the mean of an upsampled image.

    Raises:
      UserError: the filter has no taps or the sum 0, a factor is below 1, or no value is left.
    """
    if not taps or not sum(taps):
        raise UserError(f"A filter has one tap or more, with a sum that is not 0: not {taps}.")
    if up < 1 or down < 1:
        raise UserError(f"Images are resampled by factors of 1 or more, not up={up} and down={down}.")
    scale = gain**0.5 / sum(taps)
    scaled = tuple(tap * scale for tap in taps)
    for axis in (1, 2):
        x = _axis(x, scaled, up, down, padding, axis)
    return x


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3, 4, 5))
def _axis(x: Array, taps: Taps, up: int, down: int, padding: tuple[int, int], axis: int) -> Array:
    """Resamples one axis: result[m] = sum_k taps[K - 1 - k] u[m + k - before], with u[up j] = x[j] and else 0.

    Result m = up i + p meets x[i + (p + k - before) / up] for the taps k of which the division leaves nothing.
    """
    before, after = padding
    count, size = len(taps), x.shape[axis]
    length = size * up + before + after - count + 1
    if length < 1:
        raise UserError(f"A filter of {count} taps does not fit {size * up} pixels that are padded by {padding}.")
    step = down if up == 1 else 1
    rows = -(-length // up)
    offsets = [(phase + k - before) // up for phase in range(up) for k in range(count)]
    low, high = max(0, -min(offsets)), max(0, max(offsets) + rows - size)
    margins = [(low, high, 0) if i == axis else (0, 0, 0) for i in range(x.ndim)]
    padded = lax.pad(x, jnp.zeros((), x.dtype), margins)

    def phase(p: int) -> Array:
        terms = [
            taps[count - 1 - k] * lax.slice_in_dim(padded, start, start + rows, step, axis)
            for k in range(count)
            if (p + k - before) % up == 0
            for start in [low + (p + k - before) // up]
        ]
        # A phase without taps has no values: a filter that is shorter than the factor leaves zeros.
        if not terms:
            return jnp.zeros_like(lax.slice_in_dim(padded, 0, rows, step, axis))
        return functools.reduce(operator.add, terms)

    if up == 1:
        return phase(0)
    phases = jnp.stack([phase(p) for p in range(up)], axis + 1)
    y = phases.reshape(*x.shape[:axis], rows * up, *x.shape[axis + 1 :])
    return lax.slice_in_dim(y, 0, length, down, axis)


def _axis_forward(x: Array, taps: Taps, up: int, down: int, padding: tuple[int, int], axis: int) -> tuple[Array, Array]:
    return _axis(x, taps, up, down, padding, axis), x


def _axis_backward(
    taps: Taps, up: int, down: int, padding: tuple[int, int], axis: int, x: Array, dy: Array
) -> tuple[Array]:
    """Value j met the results m through the taps K - 1 - k with k = up j + before - down m."""
    before = len(taps) - 1 - padding[0]
    after = (x.shape[axis] - 1) * up + len(taps) - dy.shape[axis] * down - before
    return (_axis(dy, taps[::-1], down, up, (before, after), axis),)


_axis.defvjp(_axis_forward, _axis_backward)


def blurred(x: Float[Array, "B H W C"], taps: Taps = NARROW) -> Float[Array, "B H W C"]:
    """Filters images of one size, which is kept, with zeros outside of them."""
    return upfirdn(x, taps, padding=(len(taps) // 2, (len(taps) - 1) // 2))


def blurred_upsample(x: Float[Array, "B H W C"], taps: Taps = WIDE) -> Float[Array, "B 2*H 2*W C"]:
    """Doubles the height and width by inserted zeros and a filter, which keeps the mean."""
    return upfirdn(x, taps, up=2, padding=((len(taps) + 1) // 2, (len(taps) - 2) // 2), gain=4)


def blurred_downsample(x: Float[Array, "B H W C"], taps: Taps = WIDE) -> Float[Array, "B H//2 W//2 C"]:
    """Halves the height and width, of even sides, by a filter and every second value."""
    return upfirdn(x, taps, down=2, padding=((len(taps) - 1) // 2, (len(taps) - 2) // 2))


def blurred_up_conv(
    x: Float[Array, "B H W C"], kernel: Float[Array, "h w C D"], taps: Taps = WIDE
) -> Float[Array, "B 2*H 2*W D"]:
    """Doubles the side by inserted zeros, convolves by 1x1 or 3x3, and filters.

    The first two steps are one transposed convolution of stride 2. A 1x1 kernel comes first, where it costs least.

    Raises:
      UserError: for a kernel of another size.
    """
    if kernel.shape[:2] == (1, 1):
        return blurred_upsample(pointwise(x, kernel[0, 0]), taps)
    _check(kernel)
    turned = kernel[::-1, ::-1].transpose(0, 1, 3, 2)
    y = image_gradient(x, turned, 2, ((0, 0), (0, 0)), (2 * x.shape[1] + 1, 2 * x.shape[2] + 1))
    return upfirdn(y, taps, padding=((len(taps) - 1) // 2, (len(taps) - 2) // 2), gain=4)


def blurred_down_conv(
    x: Float[Array, "B H W C"], kernel: Float[Array, "h w C D"], taps: Taps = WIDE
) -> Float[Array, "B H//2 W//2 D"]:
    """Filters images of even sides and convolves them by 1x1 or 3x3 with stride 2, which halves the side.

    Raises:
      UserError: for a kernel of another size.
    """
    if kernel.shape[:2] == (1, 1):
        return pointwise(blurred_downsample(x, taps), kernel[0, 0])
    _check(kernel)
    y = upfirdn(x, taps, padding=((len(taps) - 1) // 2 + 1, (len(taps) - 2) // 2 + 1))
    return trilinear_conv(y, kernel, 2, ((0, 0), (0, 0)))


def _check(kernel: Array) -> None:
    if kernel.shape[:2] != (3, 3):
        raise UserError(f"A blurred convolution has a 1x1 or 3x3 kernel, not {kernel.shape[0]}x{kernel.shape[1]}.")
