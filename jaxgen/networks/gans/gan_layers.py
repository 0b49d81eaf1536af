"""Holds what the networks of the adversarial family share: their contract, layers, labels and outputs.

Generators:      `apply(variables, z [B, Z], label=None, train=False)` -> images [B, H, W, C] in [-1, 1].
Discriminators:  `apply(variables, x [B, H, W, C], label=None, train=False)` -> `{"logits": [B], "features": [B, F]}`
                 and `[B, width]` for each of `heads`, `{name: width}`, a linear layer on the features. Logits may also
                 be a map `[B, h, w]` of patches, or a tree of maps, such as one for each scale.

Logits are high on real images. Networks of both kinds receive entries of the batch as keyword arguments; `reads` names
them. Here the only one is `label`, int32 [B], which a network with the `conditioning` "none" ignores. State other than
the parameters (`jaxgen.networks.layers.stateful`) is in two collections, which training updates: `batch_stats` of batch
normalisation and `spectral` of spectral normalisation. Generators have a field `z_dim`, the width of the
noise that a method draws; z may be wider, where codes are appended. A method adds a head by
`discriminator.clone(heads={"label": 10})`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.core import freeze
from jaxtyping import Float, Int

from jaxgen.arrays import Array
from jaxgen.errors import UserError
from jaxgen.networks.layers.basic import GroupNorm
from jaxgen.networks.layers.batch_norm import BatchNorm
from jaxgen.networks.layers.convolution import zeros_init
from jaxgen.networks.layers.spectral import normalised
from jaxgen.networks.layers.strided import (
    bilinear_upsample,
    nearest_conv,
    pooled_conv,
    pooled_pointwise,
    product,
    strided_conv,
    transposed_conv,
    transposed_conv_3x3,
)

Norm = Literal["batch", "layer", "spectral", "none"]
Resampling = Literal["transposed", "bilinear", "nearest", "pooled", ""]

dcgan_init = nn.initializers.normal(0.02)  # Radford et al. 2016, section 4


class GANNetwork(nn.Module):
    """This is the base class of generators and discriminators.

    A subclass that reads other entries of the batch than a label overrides `reads` and takes arguments of those names.
    """

    config_name: ClassVar[str] = ""  # a base class; no config names it

    def __post_init__(self) -> None:
        if hasattr(self, "heads"):  # a plain dict cannot be hashed
            object.__setattr__(self, "heads", freeze(self.heads))
        super().__post_init__()

    @property
    def conditional(self) -> bool:
        """Returns whether labels are needed."""
        return getattr(self, "conditioning", "none") != "none"

    @property
    def reads(self) -> tuple[str, ...]:
        """Returns the names of the batch entries that the network takes as keyword arguments."""
        return ("label",) if self.conditional else ()


def told(network: nn.Module, batch: Mapping[str, Array]) -> dict[str, Array]:
    """Returns the entries of a batch that the network `reads`, as keyword arguments of its call."""
    return {name: batch[name] for name in network.reads}


class Dense(nn.Module):
    """This is a linear layer of [B, in]; `spectral` normalises its `kernel` [in, features]."""

    config_name = ""  # a part of other networks; no config names it

    features: int
    spectral: bool = False
    use_bias: bool = True
    kernel_init: Callable = dcgan_init

    @nn.compact
    def __call__(self, x: Float[Array, "B D"], train: bool = False) -> Float[Array, "B features"]:
        kernel = self.param("kernel", self.kernel_init, (x.shape[-1], self.features), jnp.float32)
        bias = self.param("bias", zeros_init, (self.features,), jnp.float32) if self.use_bias else 0.0
        return product(x, normalised(self, kernel, train) if self.spectral else kernel) + bias


class Conv(nn.Module):
    """Convolves [B, H, W, in]; it is fast in gradients of any order (`jaxgen.networks.layers.strided`).

    Parameters `kernel` [size, size, in, features] and `bias`; `spectral` normalises the kernel, seen as a matrix
    [size size in, features].
    """

    config_name = ""  # a part of other networks; no config names it

    features: int
    size: int = 3  # odd sizes with stride 1 keep the side, size 4 with stride 2 halves it
    stride: int = 1
    # "transposed" (size 3 or 4), or "nearest" (size 3) or "bilinear" upsampling before the convolution, double it;
    # "pooled" (size 1 or 3) halves it by the mean of 2x2 pixels after the convolution.
    resampling: Resampling = ""
    spectral: bool = False
    use_bias: bool = True
    kernel_init: Callable = dcgan_init
    padding: int | None = None  # zeros on each side without resampling; None: (size - 1) // 2

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"], train: bool = False) -> Float[Array, "B H2 W2 features"]:
        shape = (self.size, self.size, x.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape, jnp.float32)
        bias = self.param("bias", zeros_init, (self.features,), jnp.float32) if self.use_bias else 0.0
        kernel = normalised(self, kernel, train) if self.spectral else kernel
        return self._form(x, kernel) + bias

    def _form(self, x: Array, kernel: Array) -> Array:
        if self.resampling == "transposed":
            return transposed_conv_3x3(x, kernel) if self.size == 3 else transposed_conv(x, kernel)
        if self.resampling == "nearest":
            return nearest_conv(x, kernel)
        if self.resampling == "pooled":
            return pooled_pointwise(x, kernel) if self.size == 1 else pooled_conv(x, kernel)
        x = bilinear_upsample(x) if self.resampling == "bilinear" else x
        padding = (self.size - 1) // 2 if self.padding is None else self.padding
        return strided_conv(x, kernel, self.stride, ((padding,) * 2,) * 2)


def norm(kind: Norm, name: str, train: bool) -> Callable[[Array], Array]:
    """Returns the normalisation of activations: over the batch ("batch"), over each image ("layer"), or none."""
    if kind == "batch":
        layer = BatchNorm(name=name)
        return lambda x: layer(x, train)
    if kind == "layer":
        return GroupNorm(1, name=name)
    return lambda x: x


def leaky_relu(x: Array) -> Array:
    """Returns x, times 0.2 below zero, as in DCGAN's discriminator."""
    return nn.leaky_relu(x, 0.2)


def condition(label: Array | None, num_classes: int, embedding: int) -> Array:
    """Returns labels [B] one-hot, float32 [B, num_classes], or as a learned embedding of a width above 0.

    Call it in a compact method. Raises UserError where there are no classes or no labels.
    """
    label = checked(label, num_classes)
    if embedding:
        return nn.Embed(num_classes, embedding, embedding_init=nn.initializers.normal(1.0), name="label")(label)
    return jax.nn.one_hot(label, num_classes)


def checked(label: Array | None, num_classes: int) -> Array:
    """Returns the labels. Raises a UserError where classes or labels are missing."""
    if num_classes < 2:
        raise UserError("A conditional network needs classes; set num_classes, or config.data.num_classes, above 1.")
    if label is None:
        raise UserError("A conditional network needs the label of each example.")
    return label


class Outputs(nn.Module):
    """Computes a discriminator's outputs from its features [B, F]: `logits`, `features` and the heads.

    `logit` is a linear layer. With projection (Miyato & Koyama 2018) the inner product of the class's
    embedding with `pooled` [B, P], the features' sum over positions, is added.
    """

    config_name = ""  # a part of other networks; no config names it

    heads: Mapping[str, int]
    num_classes: int = 0
    projection: bool = False
    spectral: bool = False
    kernel_init: Callable = dcgan_init

    @nn.compact
    def __call__(
        self, features: Float[Array, "B F"], pooled: Float[Array, "B P"], label: Int[Array, " B"] | None, train: bool
    ) -> dict[str, Float[Array, "B ..."]]:
        taken = {"logits", "features", "logit"} & set(self.heads)
        if taken:
            raise UserError(f"A discriminator has {min(taken)!r} already; give the head another name.")

        def dense(width: int, name: str) -> Array:
            layer = Dense(width, spectral=self.spectral, kernel_init=self.kernel_init, name=name)
            return layer(features, train)

        logits = dense(1, "logit")[:, 0]
        if self.projection:
            shape = (self.num_classes, pooled.shape[-1])
            label = checked(label, self.num_classes)
            rows = self.param("projection", self.kernel_init, shape, jnp.float32)
            rows = normalised(self, rows, train, "projection_u") if self.spectral else rows
            logits = logits + (rows[label] * pooled).sum(-1)
        outputs = {name: dense(width, name) for name, width in self.heads.items()}
        return {"logits": logits, "features": features, **outputs}
