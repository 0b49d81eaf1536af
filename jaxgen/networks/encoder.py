"""Holds an encoder from an image to a vector: dense layers, with or without convolutions that halve the sides."""

from __future__ import annotations

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from jaxgen.arrays import Array
from jaxgen.errors import UserError
from jaxgen.networks.layers.convolution import Conv


class Encoder(nn.Module):
    """Maps `[B, H, W, C]` images in [-1, 1] to `[B, outputs]`, float32."""

    outputs: int = 0  # set by the method: `z_dim`, or twice as many for means and log variances
    widths: tuple[int, ...] = (32, 64)  # channels of 3x3 convolutions that halve the sides; () for dense layers alone
    hidden: tuple[int, ...] = (128,)  # widths of the dense layers before the last
    num_classes: int = 0  # above 0 a label enters each dense layer
    activation: str = "gelu"  # "gelu", "relu" or "tanh"
    # Images enter the first layer in [0, 1], so that black pixels add nothing to it. With many black pixels training
    # starts more easily than in [-1, 1].
    unit_range: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"], label: Int[Array, " B"] | None = None) -> Float[Array, "B outputs"]:
        """Encodes images. Raises a UserError for missing labels, and for labels without classes."""
        act = activation(self.activation)
        x = (x + 1) / 2 if self.unit_range else x
        for level, width in enumerate(self.widths):
            init = nn.initializers.lecun_normal()
            x = act(Conv(width, stride=2, padding="same", kernel_init=init, name=f"conv_{level}")(x))
        x = x.reshape(x.shape[0], -1)
        for level, width in enumerate(self.hidden):
            x = act(nn.Dense(width, name=f"dense_{level}")(with_label(x, label, self.num_classes)))
        return jnp.asarray(nn.Dense(self.outputs, name="out")(with_label(x, label, self.num_classes)), jnp.float32)


def activation(name: str) -> Callable[[Array], Array]:
    """Returns the activation function of a name. Raises a UserError for an unknown name."""
    known = {"gelu": nn.gelu, "relu": nn.relu, "tanh": jnp.tanh}
    if name not in known:
        raise UserError(f"The activation {name!r} is unknown; take one of {', '.join(known)}.")
    return known[name]


def with_label(x: Array, label: Array | None, num_classes: int) -> Array:
    """Returns features `[B, D]`; where there are classes, with the one-hot vector of the label appended."""
    if (label is None) == (num_classes > 0):
        raise UserError(
            "The network was made with labels and none were given." if num_classes else
            "Labels were given to a network made without; set its num_classes."
        )  # fmt: skip
    return x if label is None else jnp.concatenate([x, jax.nn.one_hot(label, num_classes, dtype=x.dtype)], axis=1)
