"""Holds fully connected networks for points and small images; `jaxgen.networks.gans.gan_layers` has their contract."""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Float, Int

from jaxgen.arrays import Array
from jaxgen.networks.gans.gan_layers import Dense, GANNetwork, Norm, Outputs, checked, condition, leaky_relu, norm

# He et al. (2015), for a leaky rectifier of slope 0.2
he_init = nn.initializers.variance_scaling(2 / (1 + 0.2**2), "fan_in", "normal")


class MLPGenerator(GANNetwork):
    """Maps z [B, Z] to images [B, H, W, C]; a point of a plane is an image of shape (1, 1, 2)."""

    image_shape: tuple[int, int, int]  # (H, W, C)
    z_dim: int = 64  # the width of z that a method draws
    widths: tuple[int, ...] = (256, 256)  # of the hidden layers
    num_classes: int = 0
    conditioning: Literal["none", "concat"] = "none"  # "concat" joins the label to z
    embedding: int = 0  # width of the label's embedding; 0 for one-hot
    norm: Literal["batch", "layer", "none"] = "none"
    output: Literal["tanh", "linear"] = "tanh"  # "linear" for data without bounds

    @nn.compact
    def __call__(
        self, z: Float[Array, "B Z"], label: Int[Array, " B"] | None = None, train: bool = False
    ) -> Float[Array, "B H W C"]:
        if self.conditional:
            z = jnp.concatenate([z, condition(label, self.num_classes, self.embedding)], -1)
        for i, width in enumerate(self.widths):
            z = Dense(width, use_bias=self.norm == "none", kernel_init=he_init, name=f"dense_{i}")(z)
            z = leaky_relu(norm(self.norm, f"norm_{i}", train)(z))
        x = Dense(math.prod(self.image_shape), kernel_init=nn.initializers.lecun_normal(), name="image")(z)
        x = x.reshape(-1, *self.image_shape)
        return jnp.tanh(x) if self.output == "tanh" else x


class MLPDiscriminator(GANNetwork):
    """Maps images [B, ...] to `{"logits", "features", heads...}`; the features are the last hidden layer."""

    widths: tuple[int, ...] = (256, 256)  # of the hidden layers
    num_classes: int = 0
    # "concat" joins the label to the pixels; "projection" adds the inner product of the class's embedding with the
    # features.
    conditioning: Literal["none", "concat", "projection"] = "none"
    embedding: int = 0  # width of the label's embedding for "concat"; 0 for one-hot
    norm: Norm = "none"  # "batch" is left out behind the first layer; "spectral": of every weight
    heads: dict[str, int] = dataclasses.field(default_factory=dict)  # `{name: width}` of further outputs

    @nn.compact
    def __call__(
        self, x: Float[Array, "B ..."], label: Int[Array, " B"] | None = None, train: bool = False
    ) -> dict[str, Float[Array, "B ..."]]:
        if self.conditional:
            checked(label, self.num_classes)
        x = x.reshape(x.shape[0], -1)
        if self.conditioning == "concat":
            x = jnp.concatenate([x, condition(label, self.num_classes, self.embedding)], -1)
        spectral = self.norm == "spectral"
        for i, width in enumerate(self.widths):
            kind = self.norm if i else "none"
            bias = kind in ("none", "spectral")
            x = Dense(width, spectral=spectral, use_bias=bias, kernel_init=he_init, name=f"dense_{i}")(x, train)
            x = leaky_relu(norm(kind, f"norm_{i}", train)(x))
        outputs = Outputs(
            self.heads,
            self.num_classes,
            self.conditioning == "projection",
            spectral,
            nn.initializers.lecun_normal(),
            name="outputs",
        )
        return outputs(x, x, label, train)
