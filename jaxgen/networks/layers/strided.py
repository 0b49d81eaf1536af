"""Holds strided, transposed and resampling convolutions of [B, H, W, C] for networks that are differentiated twice.

A convolution, its gradient in the image and its gradient in the kernel belong to one trilinear form: the gradients of
each are the two others. Derivatives of every order therefore need only these three operators, for which every platform
has fast code. JAX's own rules give second derivatives of a convolution, and first derivatives of a transposed
convolution, other layouts, with which a CPU takes about ten times as long.

Images of few pixels, as in the middle of a U-Net that halves down to one pixel, meet kernels that are larger than they
are. There a CPU multiplies matrices of patches, in the kernel's own layout (`few_pixels`): its convolutions would copy
or turn the kernel, and take up to sixty times as long at 2x2 pixels.

These functions have derivatives of any order in reverse mode; forward mode (`jax.jvp`) raises a TypeError. Gradients
inside a loop are slow on a CPU, as everywhere but under `jaxgen.networks.layers.convolution.gradients_in_loops`, which
does not reach these. Kernels have the standard shape [h, w, in, out].
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Float

from jaxgen.arrays import Array
from jaxgen.errors import UserError
from jaxgen.networks.layers.convolution import (
    Padding,
    downsample,
    phase_upsampled_conv,
    plain_conv,
    plain_upsampled_conv,
    pointwise,
)

Pair = tuple[Array, Array]
Sides = tuple[int, int]

NONE: Padding = ((0, 0), (0, 0))
ONE: Padding = ((1, 1), (1, 1))


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def trilinear_conv(x: Array, kernel: Array, stride: int, padding: Padding) -> Array:
    """Computes `plain_conv`; its gradients are `image_gradient` and `kernel_gradient`."""
    form = functools.partial(plain_conv, stride=stride, padding=padding)
    if not few_pixels(jax.eval_shape(form, x, kernel), kernel):
        return form(x, kernel)
    return lax.platform_dependent(
        x, kernel, cpu=functools.partial(_conv_as_product, stride=stride, padding=padding), default=form
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def image_gradient(dy: Array, kernel: Array, stride: int, padding: Padding, shape: Sides) -> Array:
    """Returns the gradient of `plain_conv` in its image, of this height and width."""
    image = jax.ShapeDtypeStruct((dy.shape[0], *shape, kernel.shape[2]), dy.dtype)

    def as_convolution(dy: Array, kernel: Array) -> Array:
        return jax.linear_transpose(lambda x: plain_conv(x, kernel, stride, padding), image)(dy)[0]

    def as_product(dy: Array, kernel: Array) -> Array:
        """The part of each patch's gradient that belongs to a pixel is added to that pixel."""
        parts = _rows(dy) @ kernel.reshape(-1, kernel.shape[-1]).T
        cut = functools.partial(_patches, size=(kernel.shape[0], kernel.shape[1]), stride=stride, padding=padding)
        return jax.linear_transpose(cut, image)(parts.reshape(*dy.shape[:3], -1))[0]

    if not few_pixels(dy, kernel):
        return as_convolution(dy, kernel)
    return lax.platform_dependent(dy, kernel, cpu=as_product, default=as_convolution)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def kernel_gradient(x: Array, dy: Array, stride: int, padding: Padding, size: Sides) -> Array:
    """Returns the gradient of `plain_conv` in its kernel, of this height and width."""
    kernel = jax.ShapeDtypeStruct((*size, x.shape[-1], dy.shape[-1]), x.dtype)

    def as_convolution(x: Array, dy: Array) -> Array:
        return jax.linear_transpose(lambda k: plain_conv(x, k, stride, padding), kernel)(dy)[0]

    def as_product(x: Array, dy: Array) -> Array:
        return (_rows(_patches(x, size, stride, padding)).T @ _rows(dy)).reshape(kernel.shape)

    if not few_pixels(dy, kernel):
        return as_convolution(x, dy)
    return lax.platform_dependent(x, dy, cpu=as_product, default=as_convolution)


def few_pixels(y: jax.ShapeDtypeStruct | Array, kernel: jax.ShapeDtypeStruct | Array) -> bool:
    """Tells whether a product of patches is faster on a CPU than a convolution that gives y [B, H, W, out].

    It is at up to 2x2 pixels of 8 channels or more, and where the batch's pixels together are at most half of the
    channels on both sides.
    """
    batch, height, width, _ = y.shape
    channels = min(kernel.shape[2], kernel.shape[3])
    small = height * width <= 4 and channels >= 8
    return kernel.shape[:2] != (1, 1) and (small or 2 * batch * height * width <= channels)


def _rows(x: Array) -> Array:
    return x.reshape(-1, x.shape[-1])


def _patches(x: Array, size: Sides, stride: int, padding: Padding) -> Array:
    """Returns what each pixel of the result sees, [B, H2, W2, h w in], in the order of a kernel [h, w, in, out]."""
    padded = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    ends = [padded.shape[1 + axis] - size[axis] + 1 for axis in (0, 1)]
    taps = [padded[:, a : a + ends[0] : stride, b : b + ends[1] : stride] for a, b in np.ndindex(*size)]
    return jnp.concatenate(taps, axis=-1)


def _conv_as_product(x: Array, kernel: Array, stride: int, padding: Padding) -> Array:
    patches = _patches(x, (kernel.shape[0], kernel.shape[1]), stride, padding)
    return patches @ kernel.reshape(-1, kernel.shape[-1])


def _conv_forward(x: Array, kernel: Array, stride: int, padding: Padding) -> tuple[Array, Pair]:
    return trilinear_conv(x, kernel, stride, padding), (x, kernel)


def _conv_backward(stride: int, padding: Padding, saved: Pair, dy: Array) -> Pair:
    x, kernel = saved
    dx = image_gradient(dy, kernel, stride, padding, x.shape[1:3])
    return dx, kernel_gradient(x, dy, stride, padding, kernel.shape[:2])


def _image_forward(dy: Array, kernel: Array, stride: int, padding: Padding, shape: Sides) -> tuple[Array, Pair]:
    return image_gradient(dy, kernel, stride, padding, shape), (dy, kernel)


def _image_backward(stride: int, padding: Padding, shape: Sides, saved: Pair, x: Array) -> Pair:
    dy, kernel = saved
    return trilinear_conv(x, kernel, stride, padding), kernel_gradient(x, dy, stride, padding, kernel.shape[:2])


def _kernel_forward(x: Array, dy: Array, stride: int, padding: Padding, size: Sides) -> tuple[Array, Pair]:
    return kernel_gradient(x, dy, stride, padding, size), (x, dy)


def _kernel_backward(stride: int, padding: Padding, size: Sides, saved: Pair, kernel: Array) -> Pair:
    x, dy = saved
    return image_gradient(dy, kernel, stride, padding, x.shape[1:3]), trilinear_conv(x, kernel, stride, padding)


trilinear_conv.defvjp(_conv_forward, _conv_backward)
image_gradient.defvjp(_image_forward, _image_backward)
kernel_gradient.defvjp(_kernel_forward, _kernel_backward)


def strided_conv(
    x: Float[Array, "B H W C"], kernel: Float[Array, "h w C D"], stride: int = 1, padding: Padding = NONE
) -> Float[Array, "B H2 W2 D"]:
    """Computes `plain_conv`, with fast gradients of every order; a 1x1 kernel without padding is a matrix product."""
    if kernel.shape[:2] == (1, 1) and padding == NONE:
        return pointwise(x[:, ::stride, ::stride], kernel[0, 0])
    return trilinear_conv(x, kernel, stride, padding)


@jax.custom_vjp
def transposed_conv(x: Float[Array, "B H W C"], kernel: Float[Array, "4 4 C D"]) -> Float[Array, "B 2*H 2*W D"]:
    """Doubles the height and width by a transposed convolution of stride 2, [B, H, W, in] -> [B, 2H, 2W, out].

    It is the gradient of a strided convolution in its image. The kernel [4, 4, in, out] is that of
    `lax.conv_transpose` (padding SAME) and of flax; that of PyTorch's ConvTranspose2d(in, out, 4, 2, 1) is the same
    rotated by 180 degrees. Raises UserError for another size.
    """
    if kernel.shape[:2] != (4, 4):
        raise UserError(f"A transposed convolution has a 4x4 kernel here, not {kernel.shape[0]}x{kernel.shape[1]}.")

    def as_gradient(x: Array, kernel: Array) -> Array:
        return image_gradient(x, _turned(kernel), 2, ONE, (2 * x.shape[1], 2 * x.shape[2]))

    def as_product(x: Array, kernel: Array) -> Array:
        """What a pixel gives to each place around it is added there."""
        rows = _rows(x)
        taps = jnp.broadcast_to(rows, (16, *rows.shape)) @ kernel.reshape(16, *kernel.shape[2:])
        image = jax.ShapeDtypeStruct((x.shape[0], 2 * x.shape[1], 2 * x.shape[2], kernel.shape[-1]), x.dtype)
        return jax.linear_transpose(_turned_taps, image)(taps)[0]

    if not few_pixels(x, kernel):
        return as_gradient(x, kernel)
    return lax.platform_dependent(x, kernel, cpu=as_product, default=as_gradient)


@jax.custom_vjp
def transposed_kernel_gradient(x: Array, dy: Array) -> Array:
    """Returns the gradient of `transposed_conv` in its kernel, from x [B, H, W, in] and dy [B, 2H, 2W, out].

    Where the kernel is larger than the images, as in the first layers after a latent, a CPU multiplies x with all
    sixteen shifts of dy, and the product has the kernel's own layout. The gradient of a strided convolution would be
    transposed again at each use by the optimiser.
    """

    def as_convolution(x: Array, dy: Array) -> Array:
        return _turned(kernel_gradient(dy, x, 2, ONE, (4, 4)))

    def as_product(x: Array, dy: Array) -> Array:
        taps, rows = _turned_taps(dy), _rows(x)
        if few_pixels(x, jax.ShapeDtypeStruct((4, 4, x.shape[-1], dy.shape[-1]), x.dtype)):
            product = jnp.broadcast_to(rows.T, (16, *rows.T.shape)) @ taps
            return product.reshape(4, 4, *product.shape[1:])
        product = rows.T @ taps.transpose(1, 0, 2).reshape(len(rows), -1)
        return product.reshape(x.shape[-1], 4, 4, -1).transpose(1, 2, 0, 3)

    if x.size // x.shape[-1] > x.shape[-1]:
        return as_convolution(x, dy)
    return lax.platform_dependent(x, dy, cpu=as_product, default=as_convolution)


@jax.custom_vjp
def transposed_image_gradient(dy: Array, kernel: Array) -> Array:
    """Returns the gradient of `transposed_conv` in its image, from dy [B, 2H, 2W, out]: a strided convolution."""

    def as_convolution(dy: Array, kernel: Array) -> Array:
        return trilinear_conv(dy, _turned(kernel), 2, ONE)

    def as_product(dy: Array, kernel: Array) -> Array:
        turned = kernel.reshape(16, *kernel.shape[2:]).transpose(0, 2, 1)
        return (_turned_taps(dy) @ turned).sum(0).reshape(small.shape)

    small = jax.ShapeDtypeStruct((dy.shape[0], dy.shape[1] // 2, dy.shape[2] // 2, kernel.shape[2]), dy.dtype)
    if not few_pixels(small, kernel):
        return as_convolution(dy, kernel)
    return lax.platform_dependent(dy, kernel, cpu=as_product, default=as_convolution)


def _turned_taps(dy: Array) -> Array:
    """Returns dy[2 i + 2 - a, 2 j + 2 - b] for each tap [a, b] of a transposed convolution, [16, B H W, out]."""
    height, width = dy.shape[1:3]
    padded = jnp.pad(dy, ((0, 0), (1, 1), (1, 1), (0, 0)))
    taps = [padded[:, 3 - a : 3 - a + height : 2, 3 - b : 3 - b + width : 2] for a, b in np.ndindex(4, 4)]
    return jnp.stack(taps).reshape(16, -1, dy.shape[-1])


def transposed_conv_3x3(x: Float[Array, "B H W C"], kernel: Float[Array, "3 3 C D"]) -> Float[Array, "B 2*H 2*W D"]:
    """Doubles the height and width by a transposed convolution of stride 2 with a 3x3 kernel [3, 3, in, out].

    The kernel of PyTorch's ConvTranspose2d(in, out, 3, 2, 1, output_padding=1) is the same rotated by 180 degrees.
    """
    return image_gradient(x, _turned(kernel), 2, ONE, (2 * x.shape[1], 2 * x.shape[2]))


def _turned(kernel: Array) -> Array:
    return kernel[::-1, ::-1].transpose(0, 1, 3, 2)


def _transposed_forward(x: Array, kernel: Array) -> tuple[Array, Pair]:
    return transposed_conv(x, kernel), (x, kernel)


def _transposed_backward(saved: Pair, dy: Array) -> Pair:
    x, kernel = saved
    return transposed_image_gradient(dy, kernel), transposed_kernel_gradient(x, dy)


def _transposed_image_forward(dy: Array, kernel: Array) -> tuple[Array, Pair]:
    return transposed_image_gradient(dy, kernel), (dy, kernel)


def _transposed_image_backward(saved: Pair, x: Array) -> Pair:
    dy, kernel = saved
    return transposed_conv(x, kernel), transposed_kernel_gradient(x, dy)


def _transposed_kernel_forward(x: Array, dy: Array) -> tuple[Array, Pair]:
    return transposed_kernel_gradient(x, dy), (x, dy)


def _transposed_kernel_backward(saved: Pair, kernel: Array) -> Pair:
    x, dy = saved
    return transposed_image_gradient(dy, kernel), transposed_conv(x, kernel)


transposed_conv.defvjp(_transposed_forward, _transposed_backward)
transposed_image_gradient.defvjp(_transposed_image_forward, _transposed_image_backward)
transposed_kernel_gradient.defvjp(_transposed_kernel_forward, _transposed_kernel_backward)


@jax.custom_vjp
def product(x: Float[Array, "B C"], kernel: Float[Array, "C D"]) -> Float[Array, "B D"]:
    """Multiplies x [B, in] and kernel [in, out]; the kernel's gradient has the kernel's layout.

    The gradient by JAX's own rule is the transpose, which a CPU transposes at each use by the optimiser.
    """
    return x @ kernel


def _product_forward(x: Array, kernel: Array) -> tuple[Array, Pair]:
    return product(x, kernel), (x, kernel)


def _product_backward(saved: Pair, dy: Array) -> Pair:
    x, kernel = saved
    return product(dy, kernel.T), product(x.T, dy)


product.defvjp(_product_forward, _product_backward)


def nearest_conv(x: Float[Array, "B H W C"], kernel: Float[Array, "3 3 C D"]) -> Float[Array, "B 2*H 2*W D"]:
    """Convolves the image, doubled by nearest neighbour, with a 3x3 kernel: [B, H, W, in] -> [B, 2H, 2W, out]."""
    return lax.platform_dependent(
        x,
        kernel,
        cpu=lambda x, kernel: phase_upsampled_conv(x, kernel, trilinear_conv),
        default=lambda x, kernel: plain_upsampled_conv(x, kernel, trilinear_conv),
    )


def pooled_conv(x: Float[Array, "B H W C"], kernel: Float[Array, "3 3 C D"]) -> Float[Array, "B H//2 W//2 D"]:
    """Convolves with a 3x3 kernel, then takes means of 2x2 pixels: [B, H, W, in] -> [B, H/2, W/2, out], even sides.

    Both steps are linear. Together they are one 4x4 convolution of stride 2, with 4/9 of the products, whose kernel is
    the mean of four shifts of the 3x3 kernel.
    """
    shifts = (((0, 1), (0, 1)), ((0, 1), (1, 0)), ((1, 0), (0, 1)), ((1, 0), (1, 0)))
    wide = sum(jnp.pad(kernel, (*shift, (0, 0), (0, 0))) for shift in shifts) / 4
    return trilinear_conv(x, wide, 2, ONE)


def pooled_pointwise(x: Float[Array, "B H W C"], kernel: Float[Array, "1 1 C D"]) -> Float[Array, "B H//2 W//2 D"]:
    """Takes means of 2x2 pixels and convolves with a 1x1 kernel, in the order that costs less."""
    return pointwise(downsample(x), kernel[0, 0])


def bilinear_upsample(x: Float[Array, "B H W C"]) -> Float[Array, "B 2*H 2*W C"]:
    """Doubles the height and width by bilinear interpolation between pixel centres; borders are repeated.

    It is equal to `jax.image.resize(..., "bilinear")` and to PyTorch's interpolate with align_corners=False.
    """
    for axis in (1, 2):
        length = x.shape[axis]
        first, last = lax.slice_in_dim(x, 0, 1, axis=axis), lax.slice_in_dim(x, length - 1, length, axis=axis)
        before = jnp.concatenate([first, lax.slice_in_dim(x, 0, length - 1, axis=axis)], axis)
        after = jnp.concatenate([lax.slice_in_dim(x, 1, length, axis=axis), last], axis)
        pair = jnp.stack([0.25 * before + 0.75 * x, 0.75 * x + 0.25 * after], axis + 1)
        x = pair.reshape(*x.shape[:axis], 2 * length, *x.shape[axis + 1 :])
    return x
