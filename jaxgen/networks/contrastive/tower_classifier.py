"""Holds a classifier that is an image tower of CLIP with a last layer for classes: the supervised control of CLIP."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Float

from jaxgen.arrays import Array
from jaxgen.errors import UserError


class TowerClassifier(nn.Module):
    """Gives logits of classes, and the embedding that they are computed from; its parameters are `tower`, `classes`.

    Attributes:
      tower: an image tower, `image [B, H, W, C] -> (hidden, embedding [B, D])`.
      num_classes: how many logits there are, at least 2.
    """

    tower: nn.Module
    num_classes: int = 0

    @nn.compact
    def __call__(
        self, x: Float[Array, "B H W C"], train: bool = False
    ) -> tuple[Float[Array, "B num_classes"], Float[Array, "B D"]]:
        """Maps images in [-1, 1] to logits and embeddings, float32. Raises UserError for fewer than two classes."""
        if self.num_classes < 2:
            raise UserError("A classifier needs classes; set config.data.num_classes to 2 or more.")
        _, embedding = self.tower(x)
        return jnp.asarray(nn.Dense(self.num_classes, name="classes")(embedding), jnp.float32), embedding
