"""Holds the encoder of T5 (Raffel et al. 2020), the text encoder of Imagen.

It is a transformer whose attentions add a learned number to each pair of tokens, by their distance, in place of
positions. Parameters are float32; `dtype` is the type of the arithmetic, while statistics, softmax and outputs are
always float32.
"""

from __future__ import annotations

import math
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, Shaped

from jaxgen.arrays import Array
from jaxgen.errors import UserError


class T5Encoder(nn.Module):
    """Maps token ids [B, L] to features [B, L, width] and to their mean [B, width] over the tokens of the mask.

    Its parameters are `token`, `distance` [buckets, heads], which all blocks share, `block_<i>/{norm_1, query, key,
    value, out, norm_2, mlp_in, mlp_gate, mlp_out}` and `norm_out`. No layer has a bias. The fields' defaults are the
    sizes of t5-v1_1-small.

    Attributes:
      vocabulary: number of token ids.
      length: the most tokens of a text; 128 in Imagen. The weights do not depend on it.
      width, depth, heads, head_width, mlp_features: sizes of the transformer; `heads * head_width` may differ from
        `width`.
      feed_forward: "gelu" is the gated feed-forward layer of T5 1.1 (Shazeer 2020), "relu" the one without a gate of
        the first T5.
      buckets: numbers for the distances of tokens, half of them for each direction.
      farthest: the distance from which on all share the last bucket.
    """

    vocabulary: int = 32128
    length: int = 128
    width: int = 512
    depth: int = 8
    heads: int = 6
    head_width: int = 64
    mlp_features: int = 1024
    feed_forward: Literal["gelu", "relu"] = "gelu"
    buckets: int = 32
    farthest: int = 128
    norm_eps: float = 1e-6
    dtype: str | None = None

    @nn.compact
    def __call__(
        self, tokens: Int[Array, "B L"], mask: Shaped[Array, "B L"] | None = None
    ) -> tuple[Float[Array, "B L D"], Float[Array, "B D"]]:
        """Encodes texts. The mask is nonzero at the tokens that may be attended to; without a mask all may.

        Raises:
          UserError: for tokens of another shape or type, too many of them, or options that make no encoder.
        """
        self.check()
        if tokens.ndim != 2 or not jnp.issubdtype(tokens.dtype, jnp.integer):
            raise UserError(f"a T5 encoder takes token ids [B, L], not {tokens.dtype} of shape {tokens.shape}.")
        if tokens.shape[1] > self.length:
            raise UserError(f"this T5 encoder reads {self.length} tokens at most, not {tokens.shape[1]}.")
        normal = nn.initializers.normal
        places = nn.Embed(self.buckets, self.heads, embedding_init=normal(self.width**-0.5), name="distance")
        bias = places(buckets_of(tokens.shape[1], self.buckets, self.farthest)).transpose(2, 0, 1)
        if mask is not None:
            bias = jnp.where(mask.astype(bool)[:, None, None, :], bias, jnp.finfo(jnp.float32).min)
        else:
            bias = bias[None]
        words = nn.Embed(self.vocabulary, self.width, embedding_init=normal(1.0), dtype=self.dtype, name="token")
        h = words(tokens)
        options = (self.heads, self.head_width, self.mlp_features, self.feed_forward, self.norm_eps, self.dtype)
        for i in range(self.depth):
            h = Block(*options, name=f"block_{i}")(h, bias)
        h = jnp.asarray(nn.RMSNorm(self.norm_eps, dtype=self.dtype, name="norm_out")(h), jnp.float32)
        seen = jnp.ones(tokens.shape, jnp.float32) if mask is None else mask.astype(bool).astype(jnp.float32)
        total = jnp.maximum(seen.sum(axis=1, keepdims=True), 1)
        return h, (h * seen[..., None]).sum(axis=1) / total

    def check(self) -> None:
        """Raises a UserError for options that make no encoder."""
        for field in ("vocabulary", "length", "width", "depth", "heads", "head_width", "mlp_features"):
            if getattr(self, field) < 1:
                raise UserError(f"a T5 encoder's {field} is {getattr(self, field)}; it must be at least 1.")
        if self.feed_forward not in ("gelu", "relu"):
            raise UserError(f"a T5 encoder's feed_forward is 'gelu' or 'relu', not {self.feed_forward!r}.")
        if self.buckets < 4 or self.buckets % 4 or self.farthest <= self.buckets // 4:
            raise UserError(
                f"a T5 encoder's buckets are a multiple of 4, and the farthest distance is above a quarter of them; "
                f"they are {self.buckets} and {self.farthest}."
            )


class Block(nn.Module):
    """Adds attention, then a feed-forward layer, to its input, each after an RMS normalisation: [B, L, D] -> the same.

    `bias` [B or 1, heads, L, L] is added to the logits of queries (axis 2) for keys (axis 3). The logits are not
    divided by the square root of the heads' width; the initialisation makes up for it.
    """

    config_name = ""  # a part of other networks; no config names it

    heads: int
    head_width: int
    mlp_features: int
    feed_forward: str
    norm_eps: float
    dtype: str | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "B L D"], bias: Float[Array, "B2 h L L"]) -> Float[Array, "B L D"]:
        width, inner = x.shape[-1], self.heads * self.head_width

        def dense(features: int, variance: float, name: str) -> nn.Dense:
            init = nn.initializers.normal(variance**-0.5)
            return nn.Dense(features, use_bias=False, kernel_init=init, dtype=self.dtype, name=name)

        def norm(name: str) -> nn.RMSNorm:
            return nn.RMSNorm(self.norm_eps, dtype=self.dtype, name=name)

        h = norm("norm_1")(x)
        variances = {"query": width * self.head_width, "key": width, "value": width}
        query, key, value = (
            dense(inner, variance, name)(h).reshape(*h.shape[:2], self.heads, self.head_width)
            for name, variance in variances.items()
        )
        logits = jnp.einsum("bqhd,bkhd->bhqk", query, key, preferred_element_type=jnp.float32)
        weights = jax.nn.softmax(logits + bias, axis=-1).astype(value.dtype)
        h = jnp.einsum("bhqk,bkhd->bqhd", weights, value).reshape(*h.shape[:2], inner)
        x = x + dense(width, inner, "out")(h)

        h = norm("norm_2")(x)
        inside = dense(self.mlp_features, width, "mlp_in")(h)
        if self.feed_forward == "gelu":
            inside = dense(self.mlp_features, width, "mlp_gate")(h) * nn.gelu(inside, approximate=True)
        else:
            inside = nn.relu(inside)
        return x + dense(width, self.mlp_features, "mlp_out")(inside)


def buckets_of(length: int, buckets: int, farthest: int) -> np.ndarray:
    """Returns the bucket of each distance of a query (axis 0) and a key (axis 1), int32 [length, length].

    Half of the buckets are for keys behind the query. Of either half, the first half is of one distance each, and the
    others are of equal widths in the logarithm of the distance, up to `farthest` (Raffel et al. 2020, section 2.1).
    """
    place = np.arange(length)
    away = place[None, :] - place[:, None]
    half = buckets // 2
    exact = half // 2
    distance = np.abs(away)
    # float32, in which the published weights were trained: a distance on a boundary stays in its bucket
    ratio = np.log(np.maximum(distance, 1).astype(np.float32) / np.float32(exact)) / np.float32(
        math.log(farthest / exact)
    )
    far = exact + (ratio * np.float32(half - exact)).astype(np.int32)
    found = np.where(distance < exact, distance, np.minimum(far, half - 1))
    return (found + half * (away > 0)).astype(np.int32)
