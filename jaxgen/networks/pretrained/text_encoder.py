"""Holds a small transformer over the words of a caption, for models that learn their own text encoder."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Float, Int, Shaped

from jaxgen.arrays import Array
from jaxgen.errors import UserError
from jaxgen.networks.transformer import MLP, TokenAttention


class TextEncoder(nn.Module):
    """Maps token ids [B, L] to features [B, L, width], float32; every token sees every other (Vaswani et al. 2017).

    Its parameters are `token`, `position`, `block_<i>/{norm_1, attention, norm_2, mlp}` and `norm_out`.

    Attributes:
      vocabulary: number of token ids.
      length: the most tokens of a caption.
      width, depth, heads: sizes of the transformer.
    """

    vocabulary: int
    length: int
    width: int = 64
    depth: int = 2
    heads: int = 4
    dtype: str | None = None

    @nn.compact
    def __call__(self, tokens: Int[Array, "B L"], mask: Shaped[Array, "B L"] | None = None) -> Float[Array, "B L D"]:
        """Encodes captions. The mask is nonzero at the tokens that may be attended to; without a mask all may.

        Raises a UserError for tokens of another shape or type, and for too many of them.
        """
        for field in ("vocabulary", "length", "width", "depth", "heads"):
            if getattr(self, field) < 1:
                raise UserError(f"a text encoder's {field} is {getattr(self, field)}; it must be at least 1.")
        if tokens.ndim != 2 or not jnp.issubdtype(tokens.dtype, jnp.integer):
            raise UserError(f"a text encoder takes token ids [B, L], not {tokens.dtype} of shape {tokens.shape}.")
        if tokens.shape[1] > self.length:
            raise UserError(f"this text encoder reads {self.length} tokens at most, not {tokens.shape[1]}.")
        normal = nn.initializers.normal(0.02)
        h = nn.Embed(self.vocabulary, self.width, embedding_init=nn.initializers.normal(1.0), name="token")(tokens)
        h = h + self.param("position", normal, (self.length, self.width), jnp.float32)[: tokens.shape[1]]
        for i in range(self.depth):
            h = Block(self.heads, self.dtype, name=f"block_{i}")(h, mask)
        return jnp.asarray(nn.LayerNorm(dtype=self.dtype, name="norm_out")(h), jnp.float32)


class Block(nn.Module):
    """Adds attention, then an MLP four times as wide, to its input, each after a LayerNorm: [B, L, D] -> the same."""

    config_name = ""  # a part of other networks; no config names it

    heads: int
    dtype: str | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "B L D"], mask: Shaped[Array, "B L"] | None) -> Float[Array, "B L D"]:
        h = nn.LayerNorm(dtype=self.dtype, name="norm_1")(x)
        x = x + TokenAttention(self.heads, dtype=self.dtype, name="attention")(h, mask=mask)
        h = nn.LayerNorm(dtype=self.dtype, name="norm_2")(x)
        return x + MLP(4 * x.shape[-1], dtype=self.dtype, name="mlp")(h)
