"""Holds a small network on features: it gives logits of the class, and a unit vector for contrastive learning."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Float

from jaxgen.arrays import Array
from jaxgen.errors import UserError
from jaxgen.networks.encoder import activation


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
