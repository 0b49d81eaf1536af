"""Holds StyleGAN's generator (Karras et al. 2019): normalised activations, scaled and shifted by styles."""

from __future__ import annotations

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float

from jaxgen.arrays import Array
from jaxgen.networks.gans.equalised import EqualConv, EqualDense, Resampling
from jaxgen.networks.gans.upfirdn import blurred
from jaxgen.networks.layers.convolution import zeros_init
from jaxgen.networks.stylegan.latent_generator import LatentGenerator, scaled_leaky_relu, sides, widths


def adain(
    x: Float[Array, "B H W C"], scale: Float[Array, "B C"], shift: Float[Array, "B C"]
) -> Float[Array, "B H W C"]:
    """Gives each image's channels the standard deviation |scale| and the mean `shift` (Karras et al. 2019, Eq. 1)."""
    centred = x - x.mean((1, 2), keepdims=True)
    normalised = centred * jax.lax.rsqrt(jnp.square(centred).mean((1, 2), keepdims=True) + 1e-8)
    return normalised * scale[:, None, None] + shift[:, None, None]


class StyleBlock(nn.Module):
    """Is what follows a convolution: noise, a strength of it for each channel, a bias, a leaky ReLU, and AdaIN."""

    config_name = ""  # a part of other networks; no config names it

    @nn.compact
    def __call__(
        self, x: Float[Array, "B H W C"], w: Float[Array, "B D"], noise: Float[Array, "#B H W 1"] | None
    ) -> Float[Array, "B H W C"]:
        width = x.shape[-1]
        strength = self.param("noise_strength", zeros_init, (width,), jnp.float32)
        if noise is not None:
            x = x + strength * noise
        x = scaled_leaky_relu(x + self.param("bias", zeros_init, (width,), jnp.float32))
        scale, shift = jnp.split(EqualDense(2 * width, name="style")(w), 2, axis=-1)
        return adain(x, 1 + scale, shift)


class StyleSynthesis(nn.Module):
    """Makes images of styles: a constant, and two styled layers a level, the first of them doubled and blurred."""

    config_name = ""  # a part of other networks; no config names it

    image_shape: tuple[int, int, int]
    channels: int
    max_channels: int

    @nn.compact
    def __call__(
        self, w: Float[Array, "B L D"], noise: Sequence[Array] | None
    ) -> tuple[Float[Array, "B H W C"], tuple[Float[Array, "B h w c"], ...]]:
        found, activations = sides(self.image_shape), []
        width_of = widths(len(found), self.channels, self.max_channels)
        constant = self.param("constant", nn.initializers.ones_init(), (*found[0], width_of[0]), jnp.float32)
        x = jnp.broadcast_to(constant, (len(w), *constant.shape))
        for layer in range(2 * len(found)):
            width, first = width_of[layer // 2], layer % 2 == 0
            if layer:
                way: Resampling = "nearest" if first else ""
                x = EqualConv(width, resampling=way, use_bias=False, name=f"conv_{layer}")(x)
                x = blurred(x) if first else x
            x = StyleBlock(name=f"block_{layer}")(x, w[:, layer], None if noise is None else noise[layer])
            activations.append(x)
        return EqualConv(self.image_shape[2], 1, name="image")(x), tuple(activations)


class StyleGenerator(LatentGenerator):
    """Is StyleGAN's generator at its last resolution, without the growing of the paper: z or a tree to images.

    Images are not bounded; real ones are in [-1, 1], and a method clips what it gives.
    """

    @property
    def noise_shapes(self) -> tuple[tuple[int, int, int], ...]:
        found = sides(self.image_shape)
        return tuple((*found[layer // 2], 1) for layer in range(2 * len(found)))

    def painter(self) -> nn.Module:
        return StyleSynthesis(self.image_shape, self.channels, self.max_channels)
