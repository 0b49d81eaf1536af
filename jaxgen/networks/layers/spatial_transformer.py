"""Holds a transformer over an image's pixels that attends to text (Rombach et al. 2022, section 3.3, appendix E.2.1).

It computes what diffusers' `Transformer2DModel` computes inside `UNet2DConditionModel`. Its projections in and out are
1x1 convolutions or linear layers in weight files; here both are linear, which is the same.
"""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Float, Shaped

from jaxgen.arrays import Array
from jaxgen.errors import UserError
from jaxgen.networks.layers.basic import GroupNorm, kernel_init, zeros_init
from jaxgen.networks.transformer import TokenAttention

NORM_EPS = 1e-6  # of the group normalisation before the tokens; the layer normalisations have 1e-5


class GatedMLP(nn.Module):
    """Computes a GELU(b) with a, b = linear(x), then a linear layer (Shazeer 2020, GEGLU): [..., D] -> [..., D].

    Its parameters are `in` with kernel [D, 2 features], a before b, and `out`.
    """

    config_name = ""  # a part of other networks; no config names it

    features: int
    dtype: str | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "... D"]) -> Float[Array, "... D"]:
        h = nn.Dense(2 * self.features, kernel_init=kernel_init, dtype=self.dtype, name="in")(x)
        h, gate = jnp.split(h, 2, -1)
        h = h * nn.gelu(gate, approximate=False)
        return nn.Dense(x.shape[-1], kernel_init=kernel_init, dtype=self.dtype, name="out")(h)


class TransformerBlock(nn.Module):
    """Adds self-attention, cross-attention and gated MLP, each after a LayerNorm: [B, N, D] -> [B, N, D].

    Its parameters are `norm_1`, `self_attention`, `norm_2`, `cross_attention`, `norm_3` and `feed_forward`. The
    attentions have `query`, `key` and `value` without bias and `out` with one. With `only_cross_attention` the first
    attention looks at the context too and is named `first_cross_attention`.
    """

    config_name = ""  # a part of other networks; no config names it

    heads: int
    only_cross_attention: bool = False
    dtype: str | None = None

    @nn.compact
    def __call__(
        self, tokens: Float[Array, "B N D"], context: Float[Array, "B L K"], mask: Shaped[Array, "B L"] | None = None
    ) -> Float[Array, "B N D"]:
        def norm(x: Array, name: str) -> Array:
            return nn.LayerNorm(1e-5, dtype=self.dtype, use_fast_variance=False, name=name)(x)

        def attention(name: str) -> TokenAttention:
            return TokenAttention(self.heads, dtype=self.dtype, qkv_bias=False, name=name)

        h = norm(tokens, "norm_1")
        if self.only_cross_attention:
            tokens = tokens + attention("first_cross_attention")(h, context, mask)
        else:
            tokens = tokens + attention("self_attention")(h)
        tokens = tokens + attention("cross_attention")(norm(tokens, "norm_2"), context, mask)
        mlp = GatedMLP(4 * tokens.shape[-1], self.dtype, name="feed_forward")
        return tokens + mlp(norm(tokens, "norm_3"))


class SpatialTransformer(nn.Module):
    """Computes x + out(blocks(in(norm(x)))) over the pixels of x [B, H, W, C], which attend to context [B, L, D].

    `mask` [B, L] is nonzero on the context's valid tokens. `out` starts at zero, so a fresh one is the identity.
    Its parameters are `norm`, `in`, `block_<i>` and `out`. Raises UserError where `heads` does not divide C.

    Attributes:
      heads: number of heads of every attention.
      depth: number of blocks.
      norm_groups: number of groups of the group normalisation.
      only_cross_attention: see `TransformerBlock`.
    """

    config_name = ""  # a part of other networks; no config names it

    heads: int
    depth: int
    norm_groups: int
    only_cross_attention: bool = False
    dtype: str | None = None

    @nn.compact
    def __call__(
        self, x: Float[Array, "B H W C"], context: Float[Array, "B L D"], mask: Shaped[Array, "B L"] | None = None
    ) -> Float[Array, "B H W C"]:
        batch, height, width, channels = x.shape
        if self.heads < 1 or channels % self.heads:
            raise UserError(f"{self.heads} attention heads do not divide {channels} channels: choose other heads.")
        h = GroupNorm(self.norm_groups, NORM_EPS, self.dtype, name="norm")(x)
        h = h.reshape(batch, height * width, channels)
        h = nn.Dense(channels, kernel_init=kernel_init, dtype=self.dtype, name="in")(h)
        for i in range(self.depth):
            h = TransformerBlock(self.heads, self.only_cross_attention, self.dtype, name=f"block_{i}")(h, context, mask)
        h = nn.Dense(channels, kernel_init=zeros_init, dtype=self.dtype, name="out")(h)
        return x + h.reshape(x.shape)
