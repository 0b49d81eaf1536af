"""Holds a transformer that predicts each token of a sequence from those before it, as GPT-2 does (Radford et al. 2019).

It computes what transformers' `GPT2LMHeadModel` computes. A whole sequence is one call; one token after the other is a
call each, with the keys and values of the tokens before it in a cache, so that a step costs one token and not the
sequence.
"""

from __future__ import annotations

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from jaxgen.arrays import Array
from jaxgen.errors import UserError
from jaxgen.networks.layers.basic import attend, rows_dot

STD = 0.02  # of fresh weights, as GPT-2 has it


class Past(NamedTuple):
    """Holds the keys and values of all places of a sequence in one block; places that are not read yet hold zeros.

    Attributes:
      key, value: `[B, L, heads, D / heads]`.
    """

    key: Array
    value: Array


class Block(nn.Module):
    """Adds attention and then an MLP to its input, each after a LayerNorm: [B, N, D] -> [B, N, D].

    Its parameters are `norm_1`, `query`, `key`, `value`, `out`, `norm_2`, `mlp_in` and `mlp_out`.

    Attributes:
      depth: blocks in the transformer, on which the initialisation depends.
    """

    config_name = ""  # a part of other networks; no config names it

    heads: int
    depth: int
    dropout: float
    norm_eps: float
    dtype: str | None = None

    @nn.compact
    def __call__(
        self, x: Float[Array, "B N D"], sees: Array, past: Past | None, start: Array | int, train: bool
    ) -> tuple[Float[Array, "B N D"], Past]:
        """Returns the tokens, and the block's keys and values: those of `x` alone, or `past` with them in it.

        Args:
          sees: boolean [1, 1, N, M], true where a token (axis 2) may look at another one (axis 3).
          past: what was computed of the places before `start`, or None where `x` is the whole sequence.
          start: the place of the first token of `x`.
        """
        batch, length, width = x.shape

        def dense(features: int, name: str, std: float = STD) -> nn.Dense:
            init = nn.initializers.normal(std)
            return nn.Dense(features, kernel_init=init, dtype=self.dtype, dot_general=rows_dot, name=name)

        def norm(name: str) -> nn.LayerNorm:
            return nn.LayerNorm(self.norm_eps, dtype=self.dtype, use_fast_variance=False, name=name)

        drop = nn.Dropout(self.dropout, deterministic=not train)
        into_sum = STD * (2 * self.depth) ** -0.5  # the sum has two terms a block (Radford et al. 2019, section 2.3)
        h = norm("norm_1")(x)
        query, key, value = (
            dense(width, name)(h).reshape(batch, length, self.heads, width // self.heads)
            for name in ("query", "key", "value")
        )
        now = Past(key, value)
        if past is not None:
            now = jax.tree.map(lambda old, new: jax.lax.dynamic_update_slice_in_dim(old, new, start, 1), past, now)
        h = attend(query, now.key, now.value, sees).reshape(batch, length, width)
        x = x + drop(dense(width, "out", into_sum)(h))
        h = nn.gelu(dense(4 * width, "mlp_in")(norm("norm_2")(x)), approximate=True)
        return x + drop(dense(width, "mlp_out", into_sum)(h)), now


class CausalTransformer(nn.Module):
    """Maps token ids [B, L] to the logits [B, L, vocabulary], float32, of the token that follows each.

    Its parameters are `token`, `position`, `block_<i>`, `norm_out` and, if not `tied`, `head`.
    """

    vocabulary: int = 0  # token ids; set by the method
    length: int = 0  # the most tokens of a sequence; set by the method
    width: int = 256
    depth: int = 8
    heads: int = 8
    dropout: float = 0.0  # of the embeddings and of what each block adds
    tied: bool = True  # whether the logits are products with the tokens' embeddings, as in GPT-2
    norm_eps: float = 1e-5
    dtype: str | None = None  # of the arithmetic, say "bfloat16"; parameters and logits stay float32

    def setup(self) -> None:
        for field in ("vocabulary", "length", "width", "depth", "heads"):
            if getattr(self, field) < 1:
                raise UserError(f"a causal transformer's {field} is {getattr(self, field)}; it must be at least 1.")
        if self.width % self.heads:
            raise UserError(f"{self.heads} attention heads do not divide a width of {self.width}: choose other heads.")
        self.token = nn.Embed(self.vocabulary, self.width, embedding_init=nn.initializers.normal(STD))
        self.position = self.param("position", nn.initializers.normal(STD), (self.length, self.width), jnp.float32)
        options = (self.heads, self.depth, self.dropout, self.norm_eps, self.dtype)
        self.blocks = [Block(*options, name=f"block_{i}") for i in range(self.depth)]
        self.drop = nn.Dropout(self.dropout)
        self.norm_out = nn.LayerNorm(self.norm_eps, dtype=self.dtype, use_fast_variance=False)
        if not self.tied:
            init = nn.initializers.normal(STD)
            self.head = nn.Dense(self.vocabulary, use_bias=False, kernel_init=init, dtype=self.dtype)

    def __call__(self, tokens: Int[Array, "B L"], train: bool = False) -> Float[Array, "B L vocabulary"]:
        """Returns the logits of the token that follows each; those of place i depend on tokens 0 to i alone.

        Raises a UserError for tokens of another shape or type, and for too many of them.
        """
        self._check(tokens)
        return self._computed(tokens, None, 0, train)[0]

    def extend(
        self, tokens: Int[Array, "B N"], past: tuple[Past, ...], start: Array | int
    ) -> tuple[Float[Array, "B N vocabulary"], tuple[Past, ...]]:
        """Returns the logits behind further tokens, as `__call__` on the whole sequence gives them, and the new cache.

        Args:
          tokens: those of the places from `start` on.
          past: the cache, of `empty` or of a call before, which has the places before `start`.
          start: the number of tokens before them, a Python or a traced number; start + N is at most `length`.
        """
        self._check(tokens)
        return self._computed(tokens, past, start, False)

    def empty(self, batch: int) -> tuple[Past, ...]:
        """Returns the cache of no token, for sequences of `length` tokens at most."""
        shape = (batch, self.length, self.heads, self.width // self.heads)
        return tuple(Past(*(jnp.zeros(shape, self.dtype or jnp.float32) for _ in range(2))) for _ in range(self.depth))

    def _computed(
        self, tokens: Array, past: tuple[Past, ...] | None, start: Array | int, train: bool
    ) -> tuple[Array, tuple[Past, ...]]:
        count = tokens.shape[1]
        places = start + jnp.arange(count)
        others = jnp.arange(self.length if past is not None else count)
        sees = (others[None] <= places[:, None])[None, None]
        position = jax.lax.dynamic_slice_in_dim(self.position, start, count)
        x = self.drop(self.token(tokens) + position, deterministic=not train)
        x = x.astype(self.dtype or jnp.float32)
        found = []
        for i, block in enumerate(self.blocks):
            x, now = block(x, sees, None if past is None else past[i], start, train)
            found.append(now)
        x = self.norm_out(x)
        logits = self.token.attend(x) if self.tied else self.head(x)
        return jnp.asarray(logits, jnp.float32), tuple(found)

    def _check(self, tokens: Array) -> None:
        if tokens.ndim != 2 or not jnp.issubdtype(tokens.dtype, jnp.integer):
            raise UserError(f"a causal transformer takes token ids [B, L], not {tokens.dtype} of shape {tokens.shape}.")
        if tokens.shape[1] > self.length:
            raise UserError(f"this causal transformer reads {self.length} tokens at most, not {tokens.shape[1]}.")
