"""Holds a small convolutional classifier for small images; metrics read its penultimate layer as features."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Float

from jaxgen.arrays import Array
from jaxgen.errors import UserError
from jaxgen.networks.layers.convolution import Conv


class Classifier(nn.Module):
    """The classifier has 3x3 convolutions, a dense layer of features, and a last layer for the classes.

    Each convolution after the first halves the side.
    """

    num_classes: int = 0  # at least 2
    widths: tuple[int, ...] = (16, 24, 24)  # channels of each convolution
    features: int = 32  # width of the feature layer
    dropout: float = 0.0  # before and behind the feature layer

    @nn.compact
    def __call__(
        self, x: Float[Array, "B H W C"], train: bool = False
    ) -> tuple[Float[Array, "B num_classes"], Float[Array, "B features"]]:
        """Maps `[B, H, W, C]` images in [-1, 1] to `[B, num_classes]` logits and `[B, features]`, float32.

        Raises:
          UserError: for fewer than two classes.
        """
        if self.num_classes < 2:
            raise UserError("A classifier needs classes; set config.data.num_classes to 2 or more.")
        for level, width in enumerate(self.widths):
            init = nn.initializers.lecun_normal()
            conv = Conv(width, stride=2 if level else 1, padding="same", kernel_init=init, name=f"conv_{level}")
            x = nn.gelu(conv(x))
        x = nn.Dropout(self.dropout, deterministic=not train)(x.reshape(x.shape[0], -1))
        features = nn.gelu(nn.Dense(self.features, name="features")(x))
        x = nn.Dropout(self.dropout, deterministic=not train)(features)
        return jnp.asarray(nn.Dense(self.num_classes, name="classes")(x), jnp.float32), features
