"""Holds a decoder from a vector to an image: dense layers, with or without convolutions that double the sides."""

from __future__ import annotations

import math

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Float, Int

from jaxgen.arrays import Array
from jaxgen.networks.encoder import activation, with_label
from jaxgen.networks.layers.convolution import Conv


class Decoder(nn.Module):
    """Maps `[B, D]` latents to `[B, H, W, C]` raw outputs, float32: means, or logits, as the likelihood takes them."""

    image_shape: tuple[int, int, int]  # (H, W, C)
    widths: tuple[int, ...] = (64, 32)  # channels before each doubling of the sides; () for dense layers alone
    hidden: tuple[int, ...] = (128,)  # widths of the dense layers
    num_classes: int = 0  # above 0 a label enters each dense layer
    activation: str = "gelu"  # "gelu", "relu" or "tanh"

    @nn.compact
    def __call__(self, z: Float[Array, "B D"], label: Int[Array, " B"] | None = None) -> Float[Array, "B H W C"]:
        """Decodes latents. Raises a UserError for missing labels, and for labels without classes."""
        act = activation(self.activation)
        height, width, channels = self.image_shape
        x = z
        for level, features in enumerate(self.hidden):
            x = act(nn.Dense(features, name=f"dense_{level}")(with_label(x, label, self.num_classes)))
        x = with_label(x, label, self.num_classes)
        if not self.widths:
            x = nn.Dense(math.prod(self.image_shape), name="out")(x)
            return jnp.asarray(x.reshape(-1, *self.image_shape), jnp.float32)
        scale = 2 ** len(self.widths)
        start = (-(-height // scale), -(-width // scale), self.widths[0])
        x = act(nn.Dense(math.prod(start), name="start")(x)).reshape(-1, *start)
        init = nn.initializers.lecun_normal()
        for level, features in enumerate(self.widths):
            x = act(Conv(features, upsampled=True, kernel_init=init, name=f"conv_{level}")(x))
        # sides that the power of two does not divide are cut at both ends
        top, left = (x.shape[1] - height) // 2, (x.shape[2] - width) // 2
        x = x[:, top : top + height, left : left + width]
        return jnp.asarray(Conv(channels, kernel_init=init, name="out")(x), jnp.float32)
