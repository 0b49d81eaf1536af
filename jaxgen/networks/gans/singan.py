"""Holds SinGAN's two networks for one scale of a picture (Rott Shaham et al. 2019, section 2.1).

Both are fully convolutional stacks of 3x3 kernels without padding inside, so that they take images of any size, and see
patches of 11x11 pixels with five layers. Their normalisation is of each image alone: the paper's BatchNorm with batches
of one image, in training and in sampling, which is instance normalisation with a scale and a shift.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Float

from jaxgen.arrays import Array
from jaxgen.errors import UserError
from jaxgen.networks.gans.gan_layers import GANNetwork, dcgan_init, leaky_relu
from jaxgen.networks.gans.patchgan import instance_norm
from jaxgen.networks.layers.batch_norm import dcgan_scale_init
from jaxgen.networks.layers.convolution import zeros_init
from jaxgen.networks.layers.strided import strided_conv

SIZE = 3  # of every kernel


class ValidConv(nn.Module):
    """Convolves [B, H, W, in] without padding, so that one pixel is lost at each border: [B, H - 2, W - 2, out]."""

    config_name = ""  # a part of other networks; no config names it

    features: int

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H2 W2 features"]:
        kernel = self.param("kernel", dcgan_init, (SIZE, SIZE, x.shape[-1], self.features), jnp.float32)
        return strided_conv(x, kernel) + self.param("bias", zeros_init, (self.features,), jnp.float32)


class ScaledInstanceNorm(nn.Module):
    """Gives each channel of each image the mean `bias` and the standard deviation `scale`, over its pixels."""

    config_name = ""  # a part of other networks; no config names it

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H W C"]:
        scale = self.param("scale", dcgan_scale_init, (x.shape[-1],), jnp.float32)
        return instance_norm(x) * scale + self.param("bias", zeros_init, (x.shape[-1],), jnp.float32)


class SinGANNetwork(GANNetwork):
    """This is the base class of both networks.

    The first block has `width` channels, and each further one half of those before it, though not below `least_width`.
    """

    config_name = ""  # a base class; no config names it

    width: int = 32  # channels of the first block; the method doubles it every few scales
    least_width: int = 32  # channels that no block has less of
    layers: int = 5  # convolutions, the last one to the output included

    def blocks(self, x: Array) -> Sequence[Array]:
        """Returns the activations of all blocks but the last convolution. Call it in a compact method.

        Raises:
          UserError: for options that make no network.
        """
        if self.layers < 2 or self.width < 1 or self.least_width < 1:
            raise UserError(
                f"SinGAN's networks have at least 2 layers, and widths of at least 1, not layers={self.layers}, "
                f"width={self.width} and least_width={self.least_width}."
            )
        found = []
        for i in range(self.layers - 1):
            channels = self.width if i == 0 else max(self.width // 2**i, self.least_width)
            x = leaky_relu(ScaledInstanceNorm(name=f"norm_{i}")(ValidConv(channels, name=f"conv_{i}")(x)))
            found.append(x)
        return found


class SinGANGenerator(SinGANNetwork):
    """Maps a noisy image and the image itself, both [B, H, W, C], to an image of their size: a residual is added.

    The noisy image is extended at its borders by as many pixels as the convolutions take off.
    """

    border: Literal["zeros", "reflect"] = "zeros"  # what stands outside of the noisy image; the paper has zeros

    @nn.compact
    def __call__(
        self, noisy: Float[Array, "B H W C"], image: Float[Array, "B H W C"], train: bool = False
    ) -> Float[Array, "B H W C"]:
        """Ignores `train`. Raises a UserError for an image that is too small to be reflected."""
        if self.border == "reflect" and min(noisy.shape[1:3]) <= self.layers:
            raise UserError(
                f"border='reflect' mirrors {self.layers} pixels at each side, and the scale has {noisy.shape[1]}x"
                f"{noisy.shape[2]} pixels in all: use border='zeros', or a larger config.method.coarsest."
            )
        around = ((0, 0), (self.layers,) * 2, (self.layers,) * 2, (0, 0))
        x = jnp.pad(noisy, around, mode="constant" if self.border == "zeros" else "reflect")
        last = ValidConv(image.shape[-1], name="image")(self.blocks(x)[-1])
        return image + nn.tanh(last)


class SinGANDiscriminator(SinGANNetwork):
    """Maps images [B, H, W, C] to `{"logits": [B, h, w], "layers"}`, one logit for each patch, high on real patches.

    Patches have 2 `layers` + 1 pixels a side, and h and w are 2 `layers` less than H and W. "layers" is a tuple of all
    activations but the logits.
    """

    @nn.compact
    def __call__(
        self, x: Float[Array, "B H W C"], train: bool = False
    ) -> dict[str, Float[Array, "B h w"] | tuple[Float[Array, "B ..."], ...]]:
        """Ignores `train`. Raises a UserError for an image that is smaller than one patch."""
        patch = 2 * self.layers + 1
        if min(x.shape[1:3]) < patch:
            raise UserError(
                f"SinGAN's discriminator sees patches of {patch}x{patch} pixels, and a scale of the picture has "
                f"{x.shape[1]}x{x.shape[2]}: use a larger config.method.coarsest (and config.data.resolution), or "
                "fewer layers."
            )
        activations = self.blocks(x)
        return {"logits": ValidConv(1, name="logits")(activations[-1])[..., 0], "layers": tuple(activations)}
