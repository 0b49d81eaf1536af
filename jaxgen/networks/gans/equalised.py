"""Holds the layers of the growing and the style-based GANs: equalised learning rates, pixel norm, batch deviations.

A weight of an equalised layer is stored as N(0, 1) and scaled at use by gain / sqrt(fan in), so that an optimiser which
divides by the gradient's size, as Adam does, moves all layers at one relative speed (Karras et al. 2018, section 4.1).
A `multiplier` below 1 slows a layer down: the weight is stored divided by it and multiplied by it at use, as in
StyleGAN's mapping network (Karras et al. 2019, appendix C).
"""

from __future__ import annotations

import math
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float

from jaxgen.arrays import Array
from jaxgen.networks.gans.upfirdn import blurred_down_conv, blurred_up_conv
from jaxgen.networks.layers.strided import nearest_conv, pooled_conv, pooled_pointwise, product, strided_conv

Resampling = Literal["", "nearest", "pooled", "blurred_up", "blurred_down"]

HE = math.sqrt(2.0)  # the gain of a layer before a leaky ReLU, as ProGAN and StyleGAN have it


def equalised(module: nn.Module, name: str, shape: tuple[int, ...], gain: float, multiplier: float) -> Array:
    """Returns a weight [..., in, out] of a module, scaled for use. Call it in a compact method.

    The parameter begins as N(0, 1) / multiplier; the result is gain multiplier / sqrt(fan in) times as large, where
    the fan in is the product of all axes but the last.
    """
    weight = module.param(name, nn.initializers.normal(1 / multiplier), shape, jnp.float32)
    return weight * (gain * multiplier / math.sqrt(math.prod(shape[:-1])))


def scaled_bias(module: nn.Module, features: int, value: float, multiplier: float) -> Array:
    """Returns the bias [features] of a module, which begins as `value`. Call it in a compact method."""
    return module.param("bias", nn.initializers.constant(value / multiplier), (features,), jnp.float32) * multiplier


class EqualDense(nn.Module):
    """This is a linear layer of [B, in] with an equalised `kernel` [in, features] and a `bias` [features]."""

    config_name = ""  # a part of other networks; no config names it

    features: int
    gain: float = 1.0
    multiplier: float = 1.0  # of the learning rate
    use_bias: bool = True
    bias: float = 0.0  # what the bias begins as

    @nn.compact
    def __call__(self, x: Float[Array, "B D"]) -> Float[Array, "B features"]:
        y = product(x, equalised(self, "kernel", (x.shape[-1], self.features), self.gain, self.multiplier))
        return y + scaled_bias(self, self.features, self.bias, self.multiplier) if self.use_bias else y


class EqualConv(nn.Module):
    """Convolves [B, H, W, in] with an equalised `kernel` [size, size, in, features], and adds a `bias` [features].

    Sizes are odd and the side is kept, but for `resampling`: "nearest" doubles the image before a 3x3 kernel, "pooled"
    takes means of 2x2 pixels after a 1x1 or 3x3 kernel, "blurred_up" and "blurred_down" are StyleGAN2's
    (`jaxgen.networks.gans.upfirdn`). All have fast derivatives of any order.
    """

    config_name = ""  # a part of other networks; no config names it

    features: int
    size: int = 3
    resampling: Resampling = ""
    gain: float = 1.0
    multiplier: float = 1.0  # of the learning rate
    use_bias: bool = True
    padding: int | None = None  # zeros on each side without resampling; None keeps the side

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H2 W2 features"]:
        shape = (self.size, self.size, x.shape[-1], self.features)
        y = self._convolved(x, equalised(self, "kernel", shape, self.gain, self.multiplier))
        return y + scaled_bias(self, self.features, 0.0, self.multiplier) if self.use_bias else y

    def _convolved(self, x: Array, kernel: Array) -> Array:
        if self.resampling == "nearest":
            return nearest_conv(x, kernel)
        if self.resampling == "pooled":
            return pooled_pointwise(x, kernel) if self.size == 1 else pooled_conv(x, kernel)
        if self.resampling == "blurred_up":
            return blurred_up_conv(x, kernel)
        if self.resampling == "blurred_down":
            return blurred_down_conv(x, kernel)
        padding = self.size // 2 if self.padding is None else self.padding
        return strided_conv(x, kernel, 1, ((padding,) * 2,) * 2)


def pixel_norm(x: Float[Array, "... C"], epsilon: float = 1e-8) -> Float[Array, "... C"]:
    """Divides the channels of each pixel, or each vector, by their root mean square (Karras et al. 2018, section 4.2).

    Args:
      x: activations or vectors.
      epsilon: what is added to the mean of the squares.
    """
    return x * jax.lax.rsqrt(jnp.square(x).mean(-1, keepdims=True) + epsilon)


def append_deviation(
    x: Float[Array, "B H W C"], group: int = 4, features: int = 1, epsilon: float = 1e-8
) -> Float[Array, "B H W C2"]:
    """Appends the standard deviation within a group of images as channels (Karras et al. 2018, section 3).

    Image i is in one group with those B / G further on, as in StyleGAN2's code, so that neighbours in a batch are in
    different groups. The deviations over a group's G images are averaged over pixels and over the channels of each of
    `features` parts, and are the same number at all pixels of all images of the group.

    Args:
      x: activations.
      group: the images of a group; where it does not divide the batch, the largest smaller number that does.
      features: the channels that are appended; it divides C.
      epsilon: what is added to the variance.

    Returns:
      the activations with `features` channels more; a batch of one image has a deviation of sqrt(epsilon).
    """
    batch, height, width, channels = x.shape
    size = next(count for count in range(min(group, batch), 0, -1) if batch % count == 0)
    grouped = x.reshape(size, batch // size, height, width, features, channels // features)
    deviation = jnp.sqrt(jnp.square(grouped - grouped.mean(0)).mean(0) + epsilon)
    rows = jnp.tile(deviation.mean((1, 2, 4)), (size, 1))
    return jnp.concatenate([x, jnp.broadcast_to(rows[:, None, None], (batch, height, width, features))], -1)
