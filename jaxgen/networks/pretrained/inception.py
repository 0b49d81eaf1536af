"""Holds the FID's Inception network (Szegedy et al. 2016), as Google published it in December 2015, for inference.

It differs from the usual Inception-v3: average pooling does not count pixels beyond the border, the last block
pools by the maximum, and there are 1008 classes. Batch normalisation is an affine map at inference and is part of
each convolution here: `jaxgen.interop.feature_networks.inception` computes kernel and bias from weights and statistics.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jaxgen.arrays import Array
from jaxgen.errors import UserError, nearest
from jaxgen.networks.layers.convolution import conv

CLASSES = 1008


class Tap(NamedTuple):
    """Describes a place in the network at which features can be taken.

    Attributes:
      width: the width of the features.
      smallest: the least number of pixels that a side of the image must have.
    """

    width: int
    smallest: int


# in the order in which the network reaches them; maps keep height and width
TAPS = {
    "map_64": Tap(64, 7),
    "64": Tap(64, 11),
    "map_192": Tap(192, 19),
    "192": Tap(192, 27),
    "768": Tap(768, 43),
    "2048": Tap(2048, 75),
    "logits_unbiased": Tap(CLASSES, 75),
    "logits": Tap(CLASSES, 75),
}
Sizes = tuple[int, int]


class Unit(nn.Module):
    """The unit is a convolution, a bias and a ReLU.

    size: height and width of the kernel. pads: zeros on each side of both axes.
    """

    config_name = ""  # a part of other networks; no config names it

    features: int
    size: Sizes = (1, 1)
    stride: int = 1
    pads: Sizes = (0, 0)
    relu: bool = True

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H2 W2 features"]:
        shape = (*self.size, x.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.he_normal(), shape)
        bias = self.param("bias", nn.initializers.zeros_init(), (self.features,))
        high, wide = self.pads
        y = conv(x, kernel, self.stride, ((high, high), (wide, wide))) + bias
        return nn.relu(y) if self.relu else y


def same(features: int, height: int, width: int, name: str) -> Unit:
    """Returns a unit that keeps the image's size."""
    return Unit(features, (height, width), pads=(height // 2, width // 2), name=name)


class BlockA(nn.Module):
    """The blocks Mixed_5b to 5d have 1x1, 5x5, two 3x3 and an average, side by side. pooled: channels of the last."""

    config_name = ""  # a part of other networks; no config names it

    pooled: int

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H2 W2 D"]:
        fives = Unit(48, name="branch5x5_1")(x)
        threes = same(96, 3, 3, "branch3x3dbl_2")(Unit(64, name="branch3x3dbl_1")(x))
        parts = [
            Unit(64, name="branch1x1")(x),
            same(64, 5, 5, "branch5x5_2")(fives),
            same(96, 3, 3, "branch3x3dbl_3")(threes),
            nn.relu(average(Unit(self.pooled, relu=False, name="branch_pool")(x))),
        ]
        return jnp.concatenate(parts, -1)


class BlockB(nn.Module):
    """The block Mixed_6a goes from 35 to 17 pixels a side."""

    config_name = ""  # a part of other networks; no config names it

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H2 W2 D"]:
        threes = same(96, 3, 3, "branch3x3dbl_2")(Unit(64, name="branch3x3dbl_1")(x))
        parts = [
            Unit(384, (3, 3), 2, name="branch3x3")(x),
            Unit(96, (3, 3), 2, name="branch3x3dbl_3")(threes),
            maximum(x, 2),
        ]
        return jnp.concatenate(parts, -1)


class BlockC(nn.Module):
    """The blocks Mixed_6b to 6e have 7x7 convolutions as 1x7 and 7x1. width: channels inside."""

    config_name = ""  # a part of other networks; no config names it

    width: int

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H2 W2 D"]:
        sevens = Unit(self.width, name="branch7x7_1")(x)
        sevens = same(self.width, 1, 7, "branch7x7_2")(sevens)
        double = Unit(self.width, name="branch7x7dbl_1")(x)
        double = same(self.width, 7, 1, "branch7x7dbl_2")(double)
        double = same(self.width, 1, 7, "branch7x7dbl_3")(double)
        double = same(self.width, 7, 1, "branch7x7dbl_4")(double)
        parts = [
            Unit(192, name="branch1x1")(x),
            same(192, 7, 1, "branch7x7_3")(sevens),
            same(192, 1, 7, "branch7x7dbl_5")(double),
            nn.relu(average(Unit(192, relu=False, name="branch_pool")(x))),
        ]
        return jnp.concatenate(parts, -1)


class BlockD(nn.Module):
    """The block Mixed_7a goes from 17 to 8 pixels a side."""

    config_name = ""  # a part of other networks; no config names it

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H2 W2 D"]:
        sevens = same(192, 1, 7, "branch7x7x3_2")(Unit(192, name="branch7x7x3_1")(x))
        sevens = same(192, 7, 1, "branch7x7x3_3")(sevens)
        parts = [
            Unit(320, (3, 3), 2, name="branch3x3_2")(Unit(192, name="branch3x3_1")(x)),
            Unit(192, (3, 3), 2, name="branch7x7x3_4")(sevens),
            maximum(x, 2),
        ]
        return jnp.concatenate(parts, -1)


class BlockE(nn.Module):
    """The blocks Mixed_7b and 7c have 3x3 convolutions as 1x3 beside 3x1. maxima: pool by the maximum, as 7c does."""

    config_name = ""  # a part of other networks; no config names it

    maxima: bool

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H2 W2 D"]:
        threes = Unit(384, name="branch3x3_1")(x)
        double = same(384, 3, 3, "branch3x3dbl_2")(Unit(448, name="branch3x3dbl_1")(x))
        if self.maxima:
            pooled = Unit(192, name="branch_pool")(maximum(x, 1, 1))
        else:
            pooled = nn.relu(average(Unit(192, relu=False, name="branch_pool")(x)))
        parts = [
            Unit(320, name="branch1x1")(x),
            same(384, 1, 3, "branch3x3_2a")(threes),
            same(384, 3, 1, "branch3x3_2b")(threes),
            same(384, 1, 3, "branch3x3dbl_3a")(double),
            same(384, 3, 1, "branch3x3dbl_3b")(double),
            pooled,
        ]
        return jnp.concatenate(parts, -1)


class Inception(nn.Module):
    """This is the network.

    Parameters have the names of the published PyTorch files: `Mixed_5b/branch1x1/kernel`, `fc/bias`.
    """

    @nn.compact
    def __call__(
        self, x: Float[Array, "B H W 3"], taps: tuple[str, ...] = tuple(TAPS)
    ) -> dict[str, Float[Array, "B ..."]]:
        """Returns the features at the taps; nothing behind the last of them is computed.

        Args:
          x: `[B, H, W, 3]` in [-1, 1), 299 pixels a side where the features are to be the published ones.
          taps: names in TAPS: "64", "192", "768", "2048", float32 `[B, width]`, are means over the image;
            "map_64" and "map_192" `[B, h, w, width]` what the convolutions before the first two poolings give;
            "logits" `[B, 1008]`, and "logits_unbiased" the same without the last layer's bias.

        Raises:
          UserError: a tap is unknown, or the images are too small for it.
        """
        for name in taps:
            if name not in TAPS:
                raise UserError(f"Inception has no tap {name!r}; {nearest(name, TAPS)}")
            if min(x.shape[1:3]) < TAPS[name].smallest:
                side = TAPS[name].smallest
                raise UserError(f"Inception's tap {name!r} needs images of at least {side} pixels a side.")
        found = {}
        for name, value in _stages(x):
            if name in taps:
                found[name] = value
            if len(found) == len(set(taps)):
                break
        return found


def _stages(x: Array) -> Iterator[tuple[str, Array]]:
    """Yields (tap, value) in the network's order. The layers belong to the module whose call iterates."""
    x = Unit(32, (3, 3), 2, name="Conv2d_1a_3x3")(x)
    x = Unit(32, (3, 3), name="Conv2d_2a_3x3")(x)
    x = same(64, 3, 3, "Conv2d_2b_3x3")(x)
    yield "map_64", x
    x = maximum(x, 2)
    yield "64", x.mean((1, 2))
    x = Unit(80, name="Conv2d_3b_1x1")(x)
    x = Unit(192, (3, 3), name="Conv2d_4a_3x3")(x)
    yield "map_192", x
    x = maximum(x, 2)
    yield "192", x.mean((1, 2))
    for name, pooled in (("Mixed_5b", 32), ("Mixed_5c", 64), ("Mixed_5d", 64)):
        x = BlockA(pooled, name=name)(x)
    x = BlockB(name="Mixed_6a")(x)
    for name, width in (("Mixed_6b", 128), ("Mixed_6c", 160), ("Mixed_6d", 160), ("Mixed_6e", 192)):
        x = BlockC(width, name=name)(x)
    yield "768", x.mean((1, 2))
    x = BlockD(name="Mixed_7a")(x)
    x = BlockE(False, name="Mixed_7b")(x)
    x = BlockE(True, name="Mixed_7c")(x).mean((1, 2))
    yield "2048", x
    x, bias = _Logits(name="fc")(x)
    yield "logits_unbiased", x
    yield "logits", x + bias


class _Logits(nn.Module):
    """This is a dense layer that returns its bias instead of adding it."""

    @nn.compact
    def __call__(self, x: Array) -> tuple[Array, Array]:
        kernel = self.param("kernel", nn.initializers.lecun_normal(), (x.shape[-1], CLASSES))
        return x @ kernel, self.param("bias", nn.initializers.zeros_init(), (CLASSES,))


def maximum(x: Array, stride: int, pad: int = 0) -> Array:
    """Returns the maximum of 3x3 pixels; padding counts as minus infinity."""
    return nn.max_pool(x, (3, 3), (stride, stride), ((pad, pad), (pad, pad)))


def average(x: Array) -> Array:
    """Returns the mean of the 3x3 pixels centred at each pixel, over those inside the image.

    Each channel is averaged alone, so that a 1x1 convolution may come before it as well as after, where it has fewer
    channels to average.
    """
    for axis in (1, 2):
        x = _sum_of_three(x, axis)
    rows, columns = (np.convolve(np.ones(n), np.ones(3))[1:-1] for n in x.shape[1:3])  # how many are inside
    return x / np.outer(rows, columns).astype(np.float32)[:, :, None]


def _sum_of_three(x: Array, axis: int) -> Array:
    margins = [(int(n == axis),) * 2 for n in range(x.ndim)]
    size = x.shape[axis]
    padded = jnp.pad(x, margins)
    return jnp.asarray(sum(jax.lax.slice_in_dim(padded, start, start + size, axis=axis) for start in range(3)))
