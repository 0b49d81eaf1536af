"""Holds small networks on features, for the class of an image (and a unit vector), or for that of a pixel."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Float

from jaxgen.arrays import Array
from jaxgen.errors import UserError
from jaxgen.networks.encoder import activation
from jaxgen.networks.layers.batch_norm import BatchNorm


class Head(nn.Module):
    """Maps `[B, D]` features through dense layers to logits `[B, num_classes]` and a unit vector `[B, embedding]`."""

    num_classes: int = 0  # at least 2
    hidden: tuple[int, ...] = (128,)  # widths of the dense layers; () makes the logits linear in the features
    embedding: int = 0  # width of the second output
    dropout: float = 0.0  # share of each dense layer's outputs that are dropped in training
    activation: str = "gelu"  # "gelu", "relu" or "tanh"

    @nn.compact
    def __call__(
        self, x: Float[Array, "B D"], train: bool = False
    ) -> tuple[Float[Array, "B num_classes"], Float[Array, "B embedding"]]:
        """Raises a UserError for fewer than two classes. With `train` it needs the random numbers "dropout"."""
        if self.num_classes < 2:
            raise UserError("A head needs classes; set config.data.num_classes to 2 or more.")
        for level, width in enumerate(self.hidden):
            x = activation(self.activation)(nn.Dense(width, name=f"dense_{level}")(x))
            x = nn.Dropout(self.dropout, deterministic=not train)(x)
        logits = jnp.asarray(nn.Dense(self.num_classes, name="classes")(x), jnp.float32)
        if not self.embedding:
            return logits, jnp.zeros((len(x), 0))
        point = jnp.asarray(nn.Dense(self.embedding, name="embedding")(x), jnp.float32)
        return logits, point / jnp.maximum(jnp.linalg.norm(point, axis=1, keepdims=True), 1e-6)


class PixelHead(nn.Module):
    """Maps features of pixels `[P, D]` to logits of their classes `[P, num_classes]`: dense, ReLU, batch normalisation,
    for each hidden layer, then dense (Zhang et al. 2021, DatasetGAN; Baranchuk et al. 2022, section 4).
    """

    num_classes: int = 0  # set by the method
    hidden: tuple[int, ...] = (128, 32)  # widths of the layers before the last
    normalise: bool = True  # features are normalised, too, so that none is heard only because it is large

    @nn.compact
    def __call__(self, x: Float[Array, "P D"], train: bool = False) -> Float[Array, "P num_classes"]:
        x = jnp.asarray(x, jnp.float32)
        if self.normalise:
            x = BatchNorm(name="norm_in")(x, train)
        for level, width in enumerate(self.hidden):
            x = BatchNorm(name=f"norm_{level}")(nn.relu(nn.Dense(width, name=f"dense_{level}")(x)), train)
        return nn.Dense(self.num_classes, name="classes")(x)
