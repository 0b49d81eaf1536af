"""Holds DCGAN's networks (Radford et al. 2016) for images of 8 to 128 pixels; their contract is in `gan_layers`.

From 4x4 (28 pixels from 7x7) each level doubles the side by a 4x4 transposed convolution of stride 2, or by bilinear
upsampling and a 3x3 convolution; the discriminator halves it by 4x4 convolutions of stride 2. Weights begin as
N(0, 0.02), BatchNorm's scales as N(1, 0.02). There is no BatchNorm on the generator's output and the
discriminator's input.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Float, Int

from jaxgen.arrays import Array
from jaxgen.errors import UserError
from jaxgen.networks.gans.gan_layers import Conv, Dense, GANNetwork, Norm, Outputs, checked, condition, leaky_relu, norm


def levels(height: int, width: int) -> int:
    """Returns how often a side is halved until it is 4 to 7.

    Raises:
      UserError: the sides are not 4 to 7 times one power of two.
    """
    count = 0
    while min(height, width) >> count > 7:
        count += 1
    starts = height / 2**count, width / 2**count
    if any(start not in (4, 5, 6, 7) for start in starts):
        raise UserError(
            f"Images of {height}x{width} pixels do not fit: sides must be 4, 5, 6 or 7 times a power of two, such as "
            "8, 28, 32, 64 or 128."
        )
    return count


def width_at(channels: int, level: int) -> int:
    """Returns the channels after `level` + 1 halvings: they double at each, up to eight times the base."""
    return channels * min(2**level, 8)


class DCGANGenerator(GANNetwork):
    """Maps z [B, Z] to images [B, H, W, C] in [-1, 1] by tanh."""

    image_shape: tuple[int, int, int]  # (H, W, C)
    z_dim: int = 100  # the width of z that a method draws
    channels: int = 64  # of the last level before the image; doubled at each level towards z, up to eight times
    num_classes: int = 0
    conditioning: Literal["none", "concat"] = "none"  # "concat" joins the label to z
    embedding: int = 0  # width of the label's embedding; 0 for one-hot
    up: Literal["transposed", "bilinear"] = "transposed"  # "bilinear" and a 3x3 convolution leaves no checkerboard
    norm: Literal["batch", "layer", "none"] = "batch"
    extra: int = 0  # 3x3 convolutions at each resolution, in addition to those that resample

    @nn.compact
    def __call__(
        self, z: Float[Array, "B Z"], label: Int[Array, " B"] | None = None, train: bool = False
    ) -> Float[Array, "B H W C"]:
        height, width, colours = self.image_shape
        count = levels(height, width)
        plain = self.norm == "none"
        if self.conditional:
            z = jnp.concatenate([z, condition(label, self.num_classes, self.embedding)], -1)

        def finish(x: Array, name: str) -> Array:
            """Applies normalisation, ReLU and the level's further convolutions."""
            x = nn.relu(norm(self.norm, f"norm_{name}", train)(x))
            for i in range(self.extra):
                x = Conv(x.shape[-1], use_bias=plain, name=f"conv_{name}_{i}")(x)
                x = nn.relu(norm(self.norm, f"norm_{name}_{i}", train)(x))
            return x

        def up(x: Array, features: int, name: str, use_bias: bool) -> Array:
            size = 4 if self.up == "transposed" else 3
            return Conv(features, size, resampling=self.up, use_bias=use_bias, name=name)(x)

        start = (height >> count, width >> count, width_at(self.channels, max(count - 1, 0)))
        x = Dense(start[0] * start[1] * start[2], use_bias=plain, name="start")(z).reshape(-1, *start)
        x = finish(x, "start")
        for level in reversed(range(count)):
            if level == 0 and not self.extra:
                return jnp.tanh(up(x, colours, "image", use_bias=True))
            x = finish(up(x, width_at(self.channels, max(level - 1, 0)), f"up_{level}", plain), str(level))
        return jnp.tanh(Conv(colours, name="image")(x))


class Trunk(nn.Module):
    """Maps [B, H, W, C] to [B, h, w, channels' last width] with h, w in 4..7; see `DCGANDiscriminator`."""

    config_name = ""  # a part of other networks; no config names it

    channels: int
    norm: Norm
    extra: int

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"], train: bool) -> Float[Array, "B h w features"]:
        spectral = self.norm == "spectral"
        first = True

        def layer(x: Array, features: int, name: str, size: int = 3, stride: int = 1) -> Array:
            nonlocal first
            bias = first or self.norm in ("none", "spectral")
            x = Conv(features, size, stride, spectral=spectral, use_bias=bias, name=f"conv_{name}")(x, train)
            kind, first = "none" if first else self.norm, False
            return leaky_relu(norm(kind, f"norm_{name}", train)(x))

        for i in range(self.extra):
            x = layer(x, self.channels, f"image_{i}")
        for level in range(levels(*x.shape[1:3])):
            features = width_at(self.channels, level)
            x = layer(x, features, str(level), size=4, stride=2)
            for i in range(self.extra):
                x = layer(x, features, f"{level}_{i}")
        return x


class DCGANDiscriminator(GANNetwork):
    """Maps images to `{"logits", "features", heads...}`; the features are the last level's pixels, as one vector."""

    channels: int = 64  # of the first level; doubled at each, up to eight times
    num_classes: int = 0
    # "concat" joins the label to the image as constant channels; "projection" adds the inner product of the class's
    # embedding with the features.
    conditioning: Literal["none", "concat", "projection"] = "none"
    embedding: int = 0  # width of the label's embedding for "concat"; 0 for one-hot
    norm: Norm = "batch"  # "layer" for a gradient penalty, since its examples are independent; "spectral": of weights
    heads: dict[str, int] = dataclasses.field(default_factory=dict)  # `{name: width}` of further outputs
    extra: int = 0  # 3x3 convolutions at each resolution, in addition to those that resample

    @nn.compact
    def __call__(
        self, x: Float[Array, "B H W C"], label: Int[Array, " B"] | None = None, train: bool = False
    ) -> dict[str, Float[Array, "B ..."]]:
        if self.conditional:
            checked(label, self.num_classes)
        if self.conditioning == "concat":
            codes = condition(label, self.num_classes, self.embedding)[:, None, None]
            x = jnp.concatenate([x, jnp.broadcast_to(codes, (*x.shape[:3], codes.shape[-1]))], -1)
        x = Trunk(self.channels, self.norm, self.extra, name="trunk")(x, train)
        outputs = Outputs(
            self.heads, self.num_classes, self.conditioning == "projection", self.norm == "spectral", name="outputs"
        )
        return outputs(x.reshape(x.shape[0], -1), x.sum((1, 2)), label, train)


class EnergyAutoencoder(GANNetwork):
    """EBGAN's discriminator (Zhao et al. 2017) gives images an energy, low on real ones, by reconstruction from codes.

    -> `{"logits": -energy, "features": codes, "energy", "codes", "reconstruction"}`: energy [B] is the mean
    over an image's values of the squared error, codes are [B, codes], reconstructions images in [-1, 1].
    """

    codes: int = 64  # their width
    channels: int = 64  # of encoder and decoder, as in `DCGANDiscriminator` and `DCGANGenerator`
    norm: Literal["batch", "layer", "none"] = "batch"  # of encoder and decoder
    extra: int = 0  # of encoder and decoder, as in `DCGANGenerator`

    @nn.compact
    def __call__(
        self, x: Float[Array, "B H W C"], label: Int[Array, " B"] | None = None, train: bool = False
    ) -> dict[str, Float[Array, "B ..."]]:
        h = Trunk(self.channels, self.norm, self.extra, name="encoder")(x, train)
        codes = Dense(self.codes, name="codes")(h.reshape(h.shape[0], -1))
        shape = (x.shape[1], x.shape[2], x.shape[3])
        decoder = DCGANGenerator(shape, self.codes, self.channels, norm=self.norm, extra=self.extra, name="decoder")
        reconstruction = decoder(codes, train=train)
        energy = jnp.square(reconstruction - x).mean((1, 2, 3))
        return {
            "logits": -energy,
            "features": codes,
            "energy": energy,
            "codes": codes,
            "reconstruction": reconstruction,
        }
