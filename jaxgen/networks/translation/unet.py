"""The U-Net of pix2pix (Isola et al. 2017, section 3.2.1 and appendix 6.1.1): each scale skips the deeper ones.

`unet_256` of the authors' code is the default. The way down and the way up meet at a side of 1 pixel if `downs` is the
number of halvings that the image has.
"""

from __future__ import annotations

from typing import ClassVar

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Float

from jaxgen.arrays import Array
from jaxgen.errors import UserError
from jaxgen.networks.gans.gan_layers import Conv, GANNetwork, leaky_relu
from jaxgen.networks.layers.contract import check_choices
from jaxgen.networks.translation.layers import TranslationNorm, Z, check_sides, dropped, inputs, normalised


class TranslationUNet(GANNetwork):
    """Maps pictures to images of their size; the contract is that of `jaxgen.networks.translation.layers`.

    All convolutions are 4x4 of stride 2. Those on the way up are transposed, and see the activations of the way down of
    their size beside those from below. Parameters are `down_0`, ..., `up_0`, ..., and, for a norm with parameters,
    `down_norm_1`, ..., `up_norm_1`, ...; the number 0 is that of the image's size.

    Raises:
      UserError: options that make no network, or sides that 2**downs does not divide.
    """

    config_name: ClassVar[str] = "translation_unet"

    image_shape: tuple[int, int, int]  # (H, W, C) of the result; any H and W that 2**downs divides can be translated
    width: int = 64  # channels behind the first convolution; doubled at each, up to eight times
    downs: int = 8  # halvings: 8 for 256 pixels
    dropout: float = 0.5  # share that is dropped where z has keys, in training and in use
    dropout_blocks: int = 3  # how many blocks of the way up drop, behind the innermost; the authors' downs - 5
    norm: TranslationNorm = "instance"  # of all but the outermost and the innermost convolution
    z_dim: int = 0  # width of the noise that is laid over the input; pix2pix has none
    reads: tuple[str, ...] = ("condition",)  # entries of the batch that are translated
    classes: int = 0  # of maps of classes among them

    @nn.compact
    def __call__(self, z: Z | None = None, train: bool = False, **entries: Array) -> Float[Array, "B H W C"]:
        check_choices(self)
        if self.downs < 2 or self.width < 1 or self.dropout_blocks < 0:
            raise UserError(
                "A translation U-Net has downs of at least 2, a width of at least 1 and dropout_blocks of at least 0, "
                f"not {self.downs}, {self.width} and {self.dropout_blocks}."
            )
        if self.dropout and self.dropout_blocks > self.downs - 2:
            raise UserError(
                f"A translation U-Net with {self.downs} downs has {self.downs - 2} blocks that can drop, between the "
                f"outermost and the innermost, and dropout_blocks is {self.dropout_blocks}: set it to fewer."
            )
        x, keys = inputs(self, z, entries)
        check_sides("A translation U-Net", x, 2**self.downs, "set fewer downs, or another config.data.resolution")
        plain, skips = self.norm in ("instance", "none"), []  # the authors have a bias with these norms alone
        for i in range(self.downs):
            inner = 0 < i < self.downs - 1
            bias = self.norm == "none" if inner else plain
            down = Conv(self._features(i), 4, 2, use_bias=bias, name=f"down_{i}")
            x = down(x if i == 0 else leaky_relu(x))
            x = normalised(x, self.norm, f"down_norm_{i}", train) if inner else x
            skips.append(x)
        for i in reversed(range(1, self.downs)):
            up = Conv(self._features(i - 1), 4, resampling="transposed", use_bias=self.norm == "none", name=f"up_{i}")
            x = normalised(up(nn.relu(x)), self.norm, f"up_norm_{i}", train)
            if 0 < self.downs - 1 - i <= self.dropout_blocks:
                x = dropped(x, self.dropout, keys, i)
            x = jnp.concatenate([skips[i - 1], x], axis=-1)
        return jnp.tanh(Conv(self.image_shape[-1], 4, resampling="transposed", name="up_0")(nn.relu(x)))

    def _features(self, level: int) -> int:
        return self.width * min(2**level, 8)
