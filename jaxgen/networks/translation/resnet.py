"""The residual generator of CycleGAN (Zhu et al. 2017, appendix 7.2) and of pix2pixHD, where it is the global one.

`TranslationResNet()` is the authors' `resnet_9blocks`, `blocks=6` their `resnet_6blocks`, and `downs=4` with
`reads=("mask", "instance")` pix2pixHD's G1. `CoarseToFine` is pix2pixHD's generator (Wang et al. 2018, section 3.2).
"""

from __future__ import annotations

from typing import ClassVar

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Float, Key

from jaxgen.arrays import Array
from jaxgen.errors import UserError
from jaxgen.networks.gans.gan_layers import Conv, GANNetwork
from jaxgen.networks.gans.multi_scale import halved
from jaxgen.networks.layers.contract import check_choices
from jaxgen.networks.translation.layers import (
    TranslationNorm,
    Z,
    check_sides,
    dropped,
    inputs,
    normalised,
    reflected,
)

EDGE = 7  # the size of the first and of the last kernel


class Part(nn.Module):
    """Holds the layers that the parts of a residual generator are made of; the options are those of the generator."""

    config_name = ""  # a part of other networks; no config names it

    width: int  # channels at the size of the part's input
    norm: TranslationNorm

    def layer(self, x: Array, features: int, name: str, train: bool, stride: int = 1, edge: int = 0) -> Array:
        """Convolves, normalises and takes the positive part; `edge` is the size of a kernel with a mirrored border."""
        bias = self.norm == "none"
        if edge:
            conv = Conv(features, edge, padding=0, use_bias=bias, name=name)
            x = conv(reflected(x, edge // 2))
        elif stride == 2:
            x = Conv(features, 3, 2, use_bias=bias, name=name)(x)
        else:  # twice the side
            x = Conv(features, 3, resampling="transposed", use_bias=bias, name=name)(x)
        return nn.relu(normalised(x, self.norm, f"{name}_norm", train))

    def residual(self, x: Array, name: str, train: bool, rate: float, keys: Array | None, index: int) -> Array:
        """Adds two 3x3 convolutions of x, with mirrored borders, to x."""
        features, bias = x.shape[-1], self.norm == "none"
        h = Conv(features, padding=0, use_bias=bias, name=f"{name}_conv_0")(reflected(x, 1))
        h = dropped(nn.relu(normalised(h, self.norm, f"{name}_norm_0", train)), rate, keys, index)
        h = Conv(features, padding=0, use_bias=bias, name=f"{name}_conv_1")(reflected(h, 1))
        return x + normalised(h, self.norm, f"{name}_norm_1", train)


class Trunk(Part):
    """A residual generator without its last convolution: [B, H, W, in] -> [B, H, W, width].

    Parameters are `stem`, `down_i`, `block_i_conv_0`, `block_i_conv_1`, `up_i`, and `..._norm` of each.
    """

    config_name = ""  # a part of other networks; no config names it

    downs: int = 2
    blocks: int = 9
    dropout: float = 0.0

    @nn.compact
    def __call__(
        self, x: Float[Array, "B H W C"], keys: Key[Array, " B"] | None, train: bool
    ) -> Float[Array, "B H W width"]:
        x = self.layer(x, self.width, "stem", train, edge=EDGE)
        for i in range(self.downs):
            x = self.layer(x, self.width * 2 ** (i + 1), f"down_{i}", train, stride=2)
        for i in range(self.blocks):
            x = self.residual(x, f"block_{i}", train, self.dropout, keys, i)
        for i in reversed(range(self.downs)):
            x = self.layer(x, self.width * 2**i, f"up_{i}", train)
        return x


class Enhancer(Part):
    """One local enhancer: adds the features of a coarser generator to its own at half the side, and doubles it again.

    Parameters are `stem`, `down`, `block_i_conv_0`, `block_i_conv_1`, `up`, and `..._norm` of each.
    """

    config_name = ""  # a part of other networks; no config names it

    blocks: int = 3
    dropout: float = 0.0
    first: int = 0  # the number of the first dropout

    @nn.compact
    def __call__(
        self, x: Float[Array, "B H W C"], coarse: Float[Array, "B h w D"], keys: Key[Array, " B"] | None, train: bool
    ) -> Float[Array, "B H W width"]:
        x = self.layer(x, self.width, "stem", train, edge=EDGE)
        x = self.layer(x, 2 * self.width, "down", train, stride=2) + coarse
        for i in range(self.blocks):
            x = self.residual(x, f"block_{i}", train, self.dropout, keys, self.first + i)
        return self.layer(x, self.width, "up", train)


class TranslationResNet(GANNetwork):
    """Maps pictures to images of their size; the contract is that of `jaxgen.networks.translation.layers`.

    Parameters are those of the `trunk` and the last convolution, `image`.

    Raises:
      UserError: options that make no network, or sides that 2**downs does not divide.
    """

    config_name: ClassVar[str] = "translation_resnet"

    image_shape: tuple[int, int, int]  # (H, W, C) of the result; any H and W that 2**downs divides can be translated
    width: int = 64  # channels at the image's size; doubled at each halving
    downs: int = 2  # halvings
    blocks: int = 9  # residual blocks at the smallest side: the authors take 6 for 128 pixels and 9 for 256
    dropout: float = 0.0  # share that is dropped in each block where z has keys, in training and in use
    norm: TranslationNorm = "instance"
    z_dim: int = 0  # width of the noise that is laid over the input
    reads: tuple[str, ...] = ("condition",)  # entries of the batch that are translated
    classes: int = 0  # of maps of classes among them

    @nn.compact
    def __call__(self, z: Z | None = None, train: bool = False, **entries: Array) -> Float[Array, "B H W C"]:
        check_choices(self)
        x, keys = inputs(self, z, entries)
        check_residual(self, x, self.downs, self.blocks)
        x = Trunk(self.width, self.norm, self.downs, self.blocks, self.dropout, name="trunk")(x, keys, train)
        return jnp.tanh(Conv(self.image_shape[-1], EDGE, padding=0, name="image")(reflected(x, EDGE // 2)))


class CoarseToFine(GANNetwork):
    """pix2pixHD's generator: a global one on a smaller copy of the input, and local enhancers, each of twice its side.

    The features of the coarser part, before its last convolution, are added to those of the finer one. Parameters are
    `trunk`, the global generator's; `enhancer_1`, ..., from coarse to fine; and the last convolution, `image`. The
    trunk is that of a `TranslationResNet` of the same options and `2**enhancers` times the width.

    Raises:
      UserError: options that make no network, or sides that 2**(enhancers + downs) does not divide.
    """

    config_name: ClassVar[str] = "coarse_to_fine"

    image_shape: tuple[int, int, int]  # (H, W, C) of the result
    width: int = 32  # channels at the image's size; doubled at each halving
    enhancers: int = 1  # local enhancers
    downs: int = 4  # halvings within the global generator
    blocks: int = 9  # residual blocks of the global generator
    local_blocks: int = 3  # residual blocks of each enhancer
    dropout: float = 0.0  # share that is dropped in each block where z has keys, in training and in use
    norm: TranslationNorm = "instance"
    z_dim: int = 0  # width of the noise that is laid over the input
    reads: tuple[str, ...] = ("condition",)  # entries of the batch that are translated
    classes: int = 0  # of maps of classes among them

    @nn.compact
    def __call__(self, z: Z | None = None, train: bool = False, **entries: Array) -> Float[Array, "B H W C"]:
        check_choices(self)
        if self.enhancers < 1:
            raise UserError("A coarse-to-fine generator has at least one enhancer; translation_resnet has none.")
        x, keys = inputs(self, z, entries)
        check_residual(self, x, self.enhancers + self.downs, min(self.blocks, self.local_blocks))
        copies = [x]
        for _ in range(self.enhancers):
            copies.append(halved(copies[-1]))
        width = self.width * 2**self.enhancers
        h = Trunk(width, self.norm, self.downs, self.blocks, self.dropout, name="trunk")(copies[-1], keys, train)
        for i in range(1, self.enhancers + 1):
            width, first = width // 2, self.blocks + (i - 1) * self.local_blocks
            enhancer = Enhancer(width, self.norm, self.local_blocks, self.dropout, first, name=f"enhancer_{i}")
            h = enhancer(copies[self.enhancers - i], h, keys, train)
        return jnp.tanh(Conv(self.image_shape[-1], EDGE, padding=0, name="image")(reflected(h, EDGE // 2)))


def check_residual(network: GANNetwork, x: Array, halvings: int, blocks: int) -> None:
    """Raises a UserError for options that make no residual generator of these images."""
    name = type(network).__name__
    if halvings < 1 or blocks < 0 or network.width < 1:
        raise UserError(
            f"{name} has at least one halving, no negative number of blocks and a width of at least 1, "
            f"not {halvings}, {blocks} and {network.width}."
        )
    check_sides(name, x, 2**halvings, "set fewer downs, or another config.data.resolution")
    if min(x.shape[1:3]) < max(4, 2 ** (halvings + 1)):
        raise UserError(
            f"{name} mirrors borders, and {x.shape[1]}x{x.shape[2]} pixels are too few behind {halvings} halvings: "
            "set fewer downs, or a larger config.data.resolution."
        )
