"""Predicts the next token of a caption from an image and the tokens before it: the second head of CoCa.

The text tower of CLIP is the lower half of the decoder, which sees the text alone; this network is the upper half,
which sees the image too (Yu et al. 2022, section 3.2, "decoupled text decoder").
"""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jaxgen.arrays import Array
from jaxgen.errors import UserError
from jaxgen.networks.pretrained.clip import ACTIVATIONS, Block, layer_norm
from jaxgen.networks.transformer import TokenAttention


class Captioner(nn.Module):
    """Maps the text tower's hidden states and those of an image to logits of every token of the caption.

    The logits of token i come from tokens before i, of which hidden states are shifted by one place behind a learned
    `start`, so that texts need no token that begins them. Each block attends to the image, then to the tokens before.
    Its parameters are `start`, `text_in`, `norm_image`, `norm_<i>`, `cross_<i>`, `block_<i>`, `norm_out` and `token`.

    Attributes:
      vocabulary: number of token ids.
      width, depth, heads, mlp_features: sizes of the transformer.
      activation: that of its MLPs, as in `TextTower`.
    """

    vocabulary: int
    width: int = 128
    depth: int = 2
    heads: int = 4
    mlp_features: int = 512
    activation: str = "quick_gelu"
    norm_eps: float = 1e-5
    dtype: str | None = None

    @nn.compact
    def __call__(self, text: Float[Array, "B L K"], image: Float[Array, "B N D"]) -> Float[Array, "B L V"]:
        """Returns logits [B, L, vocabulary], float32.

        Args:
          text: hidden states [B, L, K] of the text tower.
          image: hidden states [B, N, D] of the image tower.

        Raises:
          UserError: for options that make no captioner.
        """
        if self.activation not in ACTIVATIONS or self.heads < 1 or self.width % self.heads or self.vocabulary < 2:
            raise UserError(
                f"A captioner has a vocabulary of 2 ids or more, heads that divide its width, and an activation of "
                f"{', '.join(ACTIVATIONS)}; this one has a vocabulary of {self.vocabulary}, {self.heads} heads for a "
                f"width of {self.width}, and {self.activation!r}."
            )
        batch, length, _ = text.shape
        h = nn.Dense(self.width, dtype=self.dtype, name="text_in")(text)
        start = self.param("start", nn.initializers.normal(0.02), (self.width,), jnp.float32)
        first = jnp.broadcast_to(start.astype(h.dtype), (batch, 1, self.width))
        h = jnp.concatenate([first, h[:, :-1]], axis=1)
        seen = layer_norm(self.norm_eps, self.dtype, "norm_image")(image)
        before = np.tril(np.ones((length, length), bool))[None, None]
        for i in range(self.depth):
            query = layer_norm(self.norm_eps, self.dtype, f"norm_{i}")(h)
            h = h + TokenAttention(self.heads, dtype=self.dtype, name=f"cross_{i}")(query, seen)
            sizes = (self.heads, self.mlp_features, self.depth, self.activation, self.norm_eps, self.dtype)
            h = Block(*sizes, name=f"block_{i}")(h, before)
        h = layer_norm(self.norm_eps, self.dtype, "norm_out")(h)
        init = nn.initializers.normal(self.width**-0.5)
        return nn.Dense(self.vocabulary, kernel_init=init, dtype=self.dtype, name="token")(h).astype(jnp.float32)
