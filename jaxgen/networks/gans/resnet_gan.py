"""Holds residual networks of SNGAN (Miyato et al. 2018) for 32 to 128 pixels.

Labels enter as in Miyato & Koyama (2018): by conditional BatchNorm in the generator and a projection in the
discriminator. Their contract is in `jaxgen.networks.gans.gan_layers`.

The papers' sizes are those for 32 and for 128 pixels; those for 64 are the latter with one level less.

    pixels   generator's widths                 discriminator's widths (halvings)
    32       256, 256, 256, 256                 128, 128, 128, 128 (2)
    64       1024, 512, 256, 128, 64            64, 128, 256, 512, 1024 (4)
    128      1024, 1024, 512, 256, 128, 64      64, 128, 256, 512, 1024, 1024 (5)
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Literal

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Float, Int

from jaxgen.arrays import Array
from jaxgen.errors import UserError
from jaxgen.networks.gans.gan_layers import Conv, Dense, GANNetwork, Outputs, Resampling, checked, norm
from jaxgen.networks.layers.batch_norm import BatchNorm
from jaxgen.networks.layers.convolution import upsample

# Glorot & Bengio (2010), uniform, with gain sqrt(2) on the residual path
glorot_init = nn.initializers.variance_scaling(1.0, "fan_avg", "uniform")
residual_init = nn.initializers.variance_scaling(2.0, "fan_avg", "uniform")


class UpBlock(nn.Module):
    """Twice the side: [B, H, W, in] -> [B, 2H, 2W, features]; BatchNorm is conditional where there are classes."""

    config_name = ""  # a part of other networks; no config names it

    features: int
    num_classes: int = 0

    @nn.compact
    def __call__(
        self, x: Float[Array, "B H W C"], label: Int[Array, " B"] | None, train: bool
    ) -> Float[Array, "B 2*H 2*W features"]:
        def normalise(x: Array, name: str) -> Array:
            ones = nn.initializers.ones_init()
            return nn.relu(BatchNorm(num_classes=self.num_classes, scale_init=ones, name=name)(x, train, label))

        h = normalise(x, "norm_0")
        h = Conv(self.features, resampling="nearest", kernel_init=residual_init, name="conv_0")(h)
        h = Conv(self.features, kernel_init=residual_init, name="conv_1")(normalise(h, "norm_1"))
        # a 1x1 convolution and a repetition of pixels commute
        return h + upsample(Conv(self.features, 1, kernel_init=glorot_init, name="shortcut")(x))


class DownBlock(nn.Module):
    """Maps [B, H, W, in] to [B, H, W, features], or to half the side."""

    config_name = ""  # a part of other networks; no config names it

    features: int
    halve: bool  # by the mean of 2x2 pixels
    first: bool  # of the network, and so without the ReLU at its beginning
    norm: Literal["spectral", "layer", "none"]

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"], train: bool) -> Float[Array, "B H2 W2 features"]:
        def conv(x: Array, name: str, pooled: bool = False, size: int = 3) -> Array:
            init = residual_init if size == 3 else glorot_init
            resampling: Resampling = "pooled" if pooled else ""
            spectral = self.norm == "spectral"
            return Conv(self.features, size, 1, resampling, spectral, kernel_init=init, name=name)(x, train)

        h = x if self.first else nn.relu(norm(self.norm, "norm_0", train)(x))
        h = conv(h, "conv_0")
        h = conv(nn.relu(norm(self.norm, "norm_1", train)(h)), "conv_1", self.halve)
        if self.halve or x.shape[-1] != self.features:
            x = conv(x, "shortcut", self.halve, size=1)
        return h + x


class ResNetGenerator(GANNetwork):
    """Maps z [B, Z] to images [B, H, W, C] in [-1, 1] by tanh.

    Raises:
      UserError: the image's sides cannot be reached by the blocks' doublings.
    """

    config_name: ClassVar[str] = "resnet_generator"

    image_shape: tuple[int, int, int]  # (H, W, C)
    z_dim: int = 128  # the width of z that a method draws
    widths: tuple[int, ...] = (256, 256, 256, 256)  # of the start and of each block; every block doubles the side
    num_classes: int = 0
    conditioning: Literal["none", "batch_norm"] = "none"  # "batch_norm": scales and shifts of each class's own

    @nn.compact
    def __call__(
        self, z: Float[Array, "B Z"], label: Int[Array, " B"] | None = None, train: bool = False
    ) -> Float[Array, "B H W C"]:
        height, width, colours = self.image_shape
        factor = 2 ** (len(self.widths) - 1)
        if height % factor or width % factor:
            raise UserError(
                f"{len(self.widths)} widths double the side {len(self.widths) - 1} times, which {height}x{width} "
                "pixels do not allow; give fewer widths."
            )
        if self.conditional:
            checked(label, self.num_classes)
        start = (height // factor, width // factor, self.widths[0])
        x = Dense(start[0] * start[1] * start[2], kernel_init=glorot_init, name="start")(z).reshape(-1, *start)
        for i, features in enumerate(self.widths[1:]):
            x = UpBlock(features, self.num_classes if self.conditional else 0, name=f"block_{i}")(x, label, train)
        x = nn.relu(BatchNorm(scale_init=nn.initializers.ones_init(), name="norm")(x, train))
        return jnp.tanh(Conv(colours, kernel_init=glorot_init, name="image")(x))


class ResNetDiscriminator(GANNetwork):
    """Maps images to `{"logits", "features", heads...}`; the features are the last block's, summed over pixels.

    Raises:
      UserError: the image's sides cannot be halved so often.
    """

    config_name: ClassVar[str] = "resnet_discriminator"

    widths: tuple[int, ...] = (128, 128, 128, 128)  # of the blocks
    halvings: int = 2  # how many blocks, the first ones, halve the side
    num_classes: int = 0
    conditioning: Literal["none", "projection"] = "none"  # adds the class's embedding times the features
    norm: Literal["spectral", "layer", "none"] = "spectral"  # "spectral": of every weight
    heads: dict[str, int] = dataclasses.field(default_factory=dict)  # `{name: width}` of further outputs

    @nn.compact
    def __call__(
        self, x: Float[Array, "B H W C"], label: Int[Array, " B"] | None = None, train: bool = False
    ) -> dict[str, Float[Array, "B ..."]]:
        height, width = x.shape[1:3]
        if height % 2**self.halvings or width % 2**self.halvings:
            raise UserError(f"{height}x{width} pixels cannot be halved {self.halvings} times; set fewer halvings.")
        for i, features in enumerate(self.widths):
            x = DownBlock(features, i < self.halvings, i == 0, self.norm, name=f"block_{i}")(x, train)
        x = nn.relu(x).sum((1, 2))
        outputs = Outputs(
            self.heads,
            self.num_classes,
            self.conditioning == "projection",
            self.norm == "spectral",
            glorot_init,
            name="outputs",
        )
        return outputs(x, x, label, train)
