"""Convolves images [B, H, W, C], each time in the form that is fast on its platform.

A 1x1 convolution is a matrix product, and on a CPU a convolution of a doubled image runs at the size of the
original. Kernels keep their standard shape [h, w, in, out] and are re-indexed at use, so weights do not
depend on the form.

Inside a loop (`lax.scan`, `while_loop`) XLA's CPU compiler leaves the transposes of a convolution in a layout that
runs tens of times slower. Networks traced under `gradients_in_loops` write these transposes out as plain
convolutions, with the same results.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
from collections.abc import Callable, Iterator

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Float

from jaxgen.arrays import Array
from jaxgen.errors import UserError

Padding = tuple[tuple[int, int], tuple[int, int]]

# Ho et al. (2020), code: uniform, variance 1 / mean(fan_in, fan_out).
kernel_init = nn.initializers.variance_scaling(1.0, "fan_avg", "uniform")
zeros_init = nn.initializers.zeros_init()

_in_loops: contextvars.ContextVar[bool] = contextvars.ContextVar("gradients_in_loops", default=False)


@contextlib.contextmanager
def gradients_in_loops() -> Iterator[None]:
    """Convolutions that are traced inside may be differentiated inside a loop at full speed, in reverse mode only.

    Wrap the call of the network, by `with` or as a decorator of a function that calls it. The gradient itself
    may be taken outside. Forward mode (`jax.jvp`) of such a network raises a TypeError. A jitted function that was
    already traced with the same shapes keeps the form of that trace.
    """
    token = _in_loops.set(True)
    try:
        yield
    finally:
        _in_loops.reset(token)


def plain_conv(
    x: Float[Array, "B H W C"], kernel: Float[Array, "h w C D"], stride: int, padding: Padding
) -> Float[Array, "B H2 W2 D"]:
    """Convolves [B, H, W, in] with [h, w, in, out] by the library's own operator."""
    return lax.conv_general_dilated(x, kernel, (stride, stride), padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))


def conv(
    x: Float[Array, "B H W C"], kernel: Float[Array, "h w C D"], stride: int = 1, padding: Padding = ((0, 0), (0, 0))
) -> Float[Array, "B H2 W2 D"]:
    """Convolves x [B, H, W, in] with kernel [h, w, in, out]; `padding` counts zeros before and after."""
    if kernel.shape[:2] == (1, 1) and padding == ((0, 0), (0, 0)):
        return pointwise(x[:, ::stride, ::stride], kernel[0, 0])
    return (loop_conv if _in_loops.get() else plain_conv)(x, kernel, stride, padding)


def pointwise(x: Float[Array, "... C"], kernel: Float[Array, "C D"]) -> Float[Array, "... D"]:
    """Returns x [..., in] times kernel [in, features], as a product of two matrices.

    If x kept its axes, the gradient of the kernel would contract several of them. A CPU would then transpose x first,
    which costs more than the product.
    """
    return (x.reshape(-1, x.shape[-1]) @ kernel).reshape(*x.shape[:-1], kernel.shape[-1])


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def loop_conv(x: Array, kernel: Array, stride: int, padding: Padding) -> Array:
    """Computes `plain_conv`; its gradients on a CPU are convolutions in the layout of the forward one."""
    return plain_conv(x, kernel, stride, padding)


def _loop_conv_forward(x: Array, kernel: Array, stride: int, padding: Padding) -> tuple[Array, tuple[Array, Array]]:
    return plain_conv(x, kernel, stride, padding), (x, kernel)


def _loop_conv_backward(stride: int, padding: Padding, saved: tuple[Array, Array], dy: Array) -> tuple[Array, Array]:
    x, kernel = saved

    def explicit_dx(x: Array, kernel: Array, dy: Array) -> Array:
        return gradient_of_image(dy, kernel, stride, padding, (x.shape[1], x.shape[2]))

    def explicit_dk(x: Array, kernel: Array, dy: Array) -> Array:
        return gradient_of_kernel(x, dy, stride, padding, (kernel.shape[0], kernel.shape[1]))

    def own_dx(x: Array, kernel: Array, dy: Array) -> Array:
        return jax.vjp(lambda x: plain_conv(x, kernel, stride, padding), x)[1](dy)[0]

    def own_dk(x: Array, kernel: Array, dy: Array) -> Array:
        return jax.vjp(lambda kernel: plain_conv(x, kernel, stride, padding), kernel)[1](dy)[0]

    # two choices, so that the kernel's gradient costs nothing where it is not used
    dx = lax.platform_dependent(x, kernel, dy, cpu=explicit_dx, default=own_dx)
    return dx, lax.platform_dependent(x, kernel, dy, cpu=explicit_dk, default=own_dk)


loop_conv.defvjp(_loop_conv_forward, _loop_conv_backward)


def gradient_of_image(dy: Array, kernel: Array, stride: int, padding: Padding, shape: tuple[int, int]) -> Array:
    """Returns the gradient of `plain_conv` in its image, of this height and width, as one plain convolution.

    The padded row p = stride q + r has met the rows o of the result through the taps a = p - stride o, so

        dx[stride q + r] = sum_j dy[q - j] kernel[stride j + r],

    a convolution for each phase r with every stride-th tap, in reverse order; all phases are computed as channels
    and interleaved. At stride 1 it is the convolution with the flipped kernel.
    """
    height, width, channels, features = kernel.shape
    taps = -(-height // stride), -(-width // stride)
    spare = ((0, taps[0] * stride - height), (0, taps[1] * stride - width), (0, 0), (0, 0))
    k = jnp.pad(kernel, spare).reshape(taps[0], stride, taps[1], stride, channels, features)
    k = k[::-1, :, ::-1].transpose(0, 2, 5, 1, 3, 4).reshape(*taps, features, stride * stride * channels)
    rows = [-(-(low + size) // stride) for (low, _), size in zip(padding, shape, strict=True)]
    margins = [(tap - 1, row - size, 0) for tap, row, size in zip(taps, rows, dy.shape[1:3], strict=True)]
    dy = lax.pad(dy, jnp.zeros((), dy.dtype), ((0, 0, 0), *margins, (0, 0, 0)))
    dx = plain_conv(dy, k, 1, ((0, 0), (0, 0)))
    dx = dx.reshape(-1, *rows, stride, stride, channels).transpose(0, 1, 3, 2, 4, 5)
    dx = dx.reshape(-1, rows[0] * stride, rows[1] * stride, channels)
    (top, _), (left, _) = padding
    return dx[:, top : top + shape[0], left : left + shape[1]]


def gradient_of_kernel(x: Array, dy: Array, stride: int, padding: Padding, size: tuple[int, int]) -> Array:
    """Returns the gradient of `plain_conv` in its kernel, of this height and width, as one plain convolution.

    dk[a] = sum_o x[stride o + a] dy[o]: dy is the kernel, its taps `stride` apart, the images are its input
    channels, and the channels of x the batch.
    """
    dk = lax.conv_general_dilated(
        x.transpose(3, 1, 2, 0),
        dy.transpose(1, 2, 0, 3),
        (1, 1),
        padding,
        rhs_dilation=(stride, stride),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    return dk[:, : size[0], : size[1]].transpose(1, 2, 0, 3)


def upsample(x: Float[Array, "B H W C"]) -> Float[Array, "B 2*H 2*W C"]:
    """Doubles the height and width by nearest neighbour: [B, H, W, C] -> [B, 2H, 2W, C]."""
    batch, height, width, channels = x.shape
    x = jnp.broadcast_to(x[:, :, None, :, None], (batch, height, 2, width, 2, channels))
    return x.reshape(batch, 2 * height, 2 * width, channels)


def downsample(x: Float[Array, "B H W C"]) -> Float[Array, "B H//2 W//2 C"]:
    """Halves the height and width by the mean of 2x2 pixels: [B, H, W, C] -> [B, H/2, W/2, C]."""
    batch, height, width, channels = x.shape
    return x.reshape(batch, height // 2, 2, width // 2, 2, channels).mean((2, 4))


def plain_upsampled_conv(x: Array, kernel: Array, form: Callable[..., Array] = plain_conv) -> Array:
    """Computes `upsample` and then a 3x3 convolution that keeps the size."""
    return form(upsample(x), kernel, 1, ((1, 1), (1, 1)))


def phase_upsampled_conv(x: Array, kernel: Array, form: Callable[..., Array] = plain_conv) -> Array:
    """Computes `plain_upsampled_conv` with 4/9 of its products, by a 2x2 convolution and depth-to-space.

    Row 2i of the result meets source rows i-1, i, i with taps w0, w1, w2, so with w0 and w1 + w2; row 2i + 1
    meets i, i, i+1, so with w0 + w1 and w2. Both are windows (j-1, j) of source rows, j = i and j = i + 1:
    interleaved, the odd row's phase comes first, and one row at either end is cut.
    """
    batch, height, width, channels = x.shape
    features = kernel.shape[-1]

    def phases(k: Array) -> Array:
        # [3, ...] -> [phase, tap, ...]
        odd, even = jnp.stack([k[0] + k[1], k[2]]), jnp.stack([k[0], k[1] + k[2]])
        return jnp.stack([odd, even])

    k = phases(jax.vmap(phases)(kernel))  # [phase_y, tap_y, phase_x, tap_x, in, out]
    k = k.transpose(1, 3, 4, 0, 2, 5).reshape(2, 2, channels, 4 * features)
    # Zeros are added before, not inside, the convolution: a CPU takes 15 times longer for the gradient of a
    # padded 2x2 kernel.
    x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    y = form(x, k, 1, ((0, 0), (0, 0)))
    y = y.reshape(batch, height + 1, width + 1, 2, 2, features).transpose(0, 1, 3, 2, 4, 5)
    return y.reshape(batch, 2 * height + 2, 2 * width + 2, features)[:, 1:-1, 1:-1]


def upsampled_conv(x: Float[Array, "B H W C"], kernel: Float[Array, "3 3 C D"]) -> Float[Array, "B 2*H 2*W D"]:
    """Convolves the doubled image by 3x3, [B, H, W, in] -> [B, 2H, 2W, out], in the platform's form."""
    cpu: Callable[[Array, Array], Array] = phase_upsampled_conv
    default: Callable[[Array, Array], Array] = plain_upsampled_conv
    if _in_loops.get():  # other functions, since JAX remembers how it traced these
        cpu, default = _loop_phase_upsampled_conv, _loop_plain_upsampled_conv
    return lax.platform_dependent(x, kernel, cpu=cpu, default=default)


def _loop_phase_upsampled_conv(x: Array, kernel: Array) -> Array:
    return phase_upsampled_conv(x, kernel, loop_conv)


def _loop_plain_upsampled_conv(x: Array, kernel: Array) -> Array:
    return plain_upsampled_conv(x, kernel, loop_conv)


class Conv(nn.Module):
    """Convolves and adds a bias; the parameters are `kernel` [size, size, in, features] and `bias` [features].

    padding: "same" (as XLA and TensorFlow: the odd zero goes last), "symmetric" (size // 2 zeros on each
        side, as PyTorch's usual `padding=1`) or the zeros themselves. The two agree at stride 1.
    upsampled: convolve the image doubled by nearest neighbour (size 3, stride 1 only).
    """

    config_name = ""  # a part of other networks; no config names it

    features: int
    size: int = 3
    stride: int = 1
    padding: str | Padding = "symmetric"
    upsampled: bool = False
    use_bias: bool = True
    kernel_init: Callable = kernel_init
    dtype: str | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H2 W2 features"]:
        shape = (self.size, self.size, x.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape, jnp.float32)
        bias = self.param("bias", zeros_init, (self.features,), jnp.float32) if self.use_bias else None
        x, kernel, bias = nn.dtypes.promote_dtype(x, kernel, bias, dtype=self.dtype)
        y = self.convolved(x, kernel)
        return y if bias is None else y + bias

    def convolved(self, x: Float[Array, "B H W C"], kernel: Float[Array, "s s C D"]) -> Float[Array, "B H2 W2 D"]:
        """Returns images convolved with a kernel of the module's size, at its stride and its padding."""
        if not self.upsampled:
            return conv(x, kernel, self.stride, self.pads(x.shape[1:3]))
        if (self.size, self.stride) != (3, 1):
            raise UserError("Conv(upsampled=True) needs size 3 and stride 1.")
        return upsampled_conv(x, kernel)

    def pads(self, shape: tuple[int, ...]) -> Padding:
        """Returns the numbers of zeros before and after each axis, for an image of this height and width."""
        if self.padding == "symmetric":
            half = self.size // 2
            return (half, half), (half, half)
        if self.padding == "same":
            rows, columns = lax.padtype_to_pads(shape, (self.size,) * 2, (self.stride,) * 2, "SAME")
            return rows, columns
        if isinstance(self.padding, str):
            raise UserError(f"padding is 'same', 'symmetric' or numbers of zeros, not {self.padding!r}.")
        (top, bottom), (left, right) = self.padding
        return (int(top), int(bottom)), (int(left), int(right))
