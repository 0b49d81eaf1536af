"""Holds StyleGAN2's generator and discriminator (Karras et al. 2020a): modulated convolutions, skips and residuals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from jaxgen.arrays import Array
from jaxgen.networks.gans.dcgan import levels
from jaxgen.networks.gans.equalised import EqualConv, EqualDense, append_deviation, equalised
from jaxgen.networks.gans.gan_layers import GANNetwork
from jaxgen.networks.gans.upfirdn import blurred_up_conv, blurred_upsample
from jaxgen.networks.layers.convolution import zeros_init
from jaxgen.networks.layers.strided import strided_conv
from jaxgen.networks.stylegan.latent_generator import (
    LatentGenerator,
    StyleMapping,
    scaled_leaky_relu,
    sides,
    widths,
)

HALF = math.sqrt(0.5)  # two branches of variance 1 add up to variance 1


def modulated_conv(
    x: Float[Array, "B H W C"],
    kernel: Float[Array, "h w C D"],
    style: Float[Array, "B C"],
    demodulate: bool = True,
    up: bool = False,
    epsilon: float = 1e-8,
) -> Float[Array, "B H2 W2 D"]:
    """Convolves each image with a kernel of its own: the input channels scaled by its style, the output normalised.

    Karras et al. (2020a), Eqs. 1 and 3, have k'[a, c, d] = s[c] k[a, c, d] / sqrt(sum over a and c of its square). A
    convolution is linear, so that scaling the channels of the image, convolving all images with the one kernel, and
    dividing the result is the same, and needs no kernel for each image.

    Args:
      x: the images.
      kernel: of odd size, which keeps the side; 1x1 or 3x3 where it is doubled.
      style: the scale of each input channel.
      demodulate: whether each output channel is divided by the length of its scaled kernel.
      up: whether the side is doubled (`jaxgen.networks.gans.upfirdn.blurred_up_conv`).
      epsilon: what is added to the squared length.
    """
    scaled = x * style[:, None, None]
    pad = kernel.shape[0] // 2
    y = blurred_up_conv(scaled, kernel) if up else strided_conv(scaled, kernel, 1, ((pad, pad), (pad, pad)))
    if not demodulate:
        return y
    lengths = jnp.square(style) @ jnp.square(kernel).sum((0, 1)) + epsilon
    return y * jax.lax.rsqrt(lengths)[:, None, None]


class ModulatedConv(nn.Module):
    """Is `modulated_conv` with a `kernel`, a `bias`, and the style as a linear layer of w that begins at 1."""

    config_name = ""  # a part of other networks; no config names it

    features: int
    size: int = 3
    up: bool = False
    demodulate: bool = True

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"], w: Float[Array, "B D"]) -> tuple[Array, Array]:
        """Returns the convolved images and the bias, which comes after the noise."""
        style = EqualDense(x.shape[-1], bias=1.0, name="style")(w)
        kernel = equalised(self, "kernel", (self.size, self.size, x.shape[-1], self.features), 1.0, 1.0)
        bias = self.param("bias", zeros_init, (self.features,), jnp.float32)
        return modulated_conv(x, kernel, style, self.demodulate, self.up), bias


class StyledLayer(nn.Module):
    """Is a modulated convolution, noise of a learned strength that begins at 0, a bias and a leaky ReLU."""

    config_name = ""  # a part of other networks; no config names it

    features: int
    up: bool = False

    @nn.compact
    def __call__(
        self, x: Float[Array, "B H W C"], w: Float[Array, "B D"], noise: Float[Array, "#B H2 W2 1"] | None
    ) -> Float[Array, "B H2 W2 features"]:
        y, bias = ModulatedConv(self.features, up=self.up, name="conv")(x, w)
        strength = self.param("noise_strength", zeros_init, (), jnp.float32)
        if noise is not None:
            y = y + strength * noise
        return scaled_leaky_relu(y + bias)


class Style2Synthesis(nn.Module):
    """Makes images of styles: a constant, two styled layers a level, and a sum of the levels' own images.

    Layer n has style n, and the image of a level has the style of the layer behind it.
    """

    config_name = ""  # a part of other networks; no config names it

    image_shape: tuple[int, int, int]
    channels: int
    max_channels: int

    @nn.compact
    def __call__(
        self, w: Float[Array, "B L D"], noise: Sequence[Array] | None
    ) -> tuple[Float[Array, "B H W C"], tuple[Float[Array, "B h w c"], ...]]:
        found = sides(self.image_shape)
        width_of = widths(len(found), self.channels, self.max_channels)
        constant = self.param("constant", nn.initializers.normal(1.0), (*found[0], width_of[0]), jnp.float32)
        x = jnp.broadcast_to(constant, (len(w), *constant.shape))
        images, activations = jnp.zeros(()), []
        for level, width in enumerate(width_of):
            for layer in range(max(0, 2 * level - 1), 2 * level + 1):
                own = None if noise is None else noise[layer]
                x = StyledLayer(width, up=layer % 2 == 1, name=f"layer_{layer}")(x, w[:, layer], own)
                activations.append(x)
            to_image = ModulatedConv(self.image_shape[2], 1, demodulate=False, name=f"image_{level}")
            y, bias = to_image(x, w[:, 2 * level + 1])
            images = y + bias + (blurred_upsample(images) if level else images)
        return images, tuple(activations)


class Style2Generator(LatentGenerator):
    """Is StyleGAN2's generator with skip connections (Karras et al. 2020a, section 4): z or a tree to images.

    Images are not bounded; real ones are in [-1, 1], and a method clips what it gives.
    """

    @property
    def noise_shapes(self) -> tuple[tuple[int, int, int], ...]:
        found = sides(self.image_shape)
        return tuple((*found[(layer + 1) // 2], 1) for layer in range(2 * len(found) - 1))

    def painter(self) -> nn.Module:
        return Style2Synthesis(self.image_shape, self.channels, self.max_channels)


class Style2Discriminator(GANNetwork):
    """Maps images to `{"logits", "features"}` by levels of two convolutions, and the deviation within the batch.

    The features are the last hidden layer. With the "projection" of a label the logit is the inner product of the
    features' projection with the label's mapping, over the root of their width (Karras et al. 2020b).
    """

    channels: int = 32  # at the images' own size; doubled at each level, up to `max_channels`
    max_channels: int = 512
    num_classes: int = 0
    conditioning: Literal["none", "projection"] = "none"
    residual: bool = True  # whether a level adds a 1x1 convolution of its input; False stacks the convolutions
    group: int = 4  # images whose deviation the discriminator sees; 1 leaves it at 0
    depth: int = 8  # linear layers of the label's mapping

    @nn.compact
    def __call__(
        self, x: Float[Array, "B H W C"], label: Int[Array, " B"] | None = None, train: bool = False
    ) -> dict[str, Float[Array, "B ..."]]:
        """Ignores `train`. Raises a UserError for sides that do not fit, or where the label is missing."""
        count = levels(*x.shape[1:3]) + 1
        width_of = widths(count, self.channels, self.max_channels)[::-1]
        x = scaled_leaky_relu(EqualConv(width_of[0], 1, name="from_image")(x))
        for level in range(count - 1):
            x = self._level(x, width_of[level], width_of[level + 1], level)
        x = append_deviation(x, self.group)
        x = scaled_leaky_relu(EqualConv(width_of[-1], name="last")(x))
        features = scaled_leaky_relu(EqualDense(width_of[-1], name="features")(x.reshape(len(x), -1)))
        if not self.conditional:
            return {"logits": EqualDense(1, name="logit")(features)[:, 0], "features": features}
        told = StyleMapping(width_of[-1], self.depth, 0.01, self.num_classes, name="mapping")(None, label)
        seen = EqualDense(width_of[-1], name="logit")(features)
        return {"logits": (seen * told).sum(-1) / math.sqrt(width_of[-1]), "features": features}

    def _level(self, x: Array, width: int, out: int, level: int) -> Array:
        """Halves the side by two convolutions, and adds the shorter way."""
        y = scaled_leaky_relu(EqualConv(width, name=f"conv_{level}_0")(x))
        gain = HALF if self.residual else 1.0
        y = scaled_leaky_relu(EqualConv(out, resampling="blurred_down", name=f"conv_{level}_1")(y), gain)
        if not self.residual:
            return y
        return y + HALF * EqualConv(out, 1, "blurred_down", use_bias=False, name=f"skip_{level}")(x)
