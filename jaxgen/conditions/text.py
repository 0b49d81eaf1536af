"""Tells a network texts, by a text encoder that learns or is frozen."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Key

from jaxgen.arrays import Array, Batch, Tree
from jaxgen.build import path_of
from jaxgen.conditions.base import Condition
from jaxgen.errors import UserError
from jaxgen.networks.layers.stateless import apply_params, init_params


@dataclasses.dataclass(frozen=True)
class Text(Condition):
    """Gives the features of each token as `context` [B, L, D] and, where asked, those of the whole text as `vector`.

    The null is the empty caption; at sampling, the entry `null_tokens` takes its place where a batch has it.

    Attributes:
      network: tokens `[B, L]` and a mask -> features `[B, L, D]`, or a tuple of these and of pooled ones `[B, D']`.
      learns: whether the text encoder is trained; if not, its weights are `config.init_from.<group>`.
      entry: the entry of the batch that has the tokens, int32 [B, L].
      empty: ids of the empty caption, which replaces a dropped one; it is filled up with `pad` to the captions' length.
      pad: the id of the tokens after a caption's end.
      mask_padding: whether attention leaves these positions out.
      context: whether the network is given the tokens' features.
      pooled: whether it is given the second output, as a vector (GLIDE, Nichol et al. 2022, section 3; Imagen).
      normalise: whether the features of each token, and the pooled ones, are brought to a mean of 0 and a standard
        deviation of 1. Features of a frozen encoder have any scale, and the denoiser has no layer of its own that would
        change it; Imagen has such normalisations (Saharia et al. 2022, section 2.2).
      shares: the group of weights that this part shares with another; "" for one of the part's own name.
    """

    network: nn.Module
    learns: bool = True
    entry: str = "tokens"
    empty: tuple[int, ...] = (1,)
    pad: int = 0
    mask_padding: bool = True
    context: bool = True
    pooled: bool = False
    normalise: bool = False
    shares: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        words = getattr(self.network, "vocabulary", 0) or 2**31
        length = getattr(self.network, "length", 0) or len(self.empty)
        ids = (*self.empty, self.pad)
        if not all(0 <= i < words for i in ids) or len(self.empty) > length:
            raise UserError(
                f"The empty text {self.empty}, filled up with {self.pad}, is no text of {type(self.network).__name__}, "
                f"which reads up to {length} ids in [0, {words}): set empty and pad to those of the tokenizer."
            )

    @property
    def entries(self) -> tuple[str, ...]:
        return (self.entry,)

    @property
    def gives(self) -> tuple[str, ...]:
        tokens = ("context", "context_mask") if self.mask_padding else ("context",)
        return (*(tokens if self.context else ()), *(("vector",) if self.pooled else ()))

    @property
    def shapes(self) -> Mapping[str, tuple[tuple[int, ...], DTypeLike]]:
        length = getattr(self.network, "length", 0)
        return {self.entry: ((length,), np.int32)} if length else {}

    @property
    def limits(self) -> Mapping[str, int]:
        words = getattr(self.network, "vocabulary", 0)
        return {self.entry: words, f"null_{self.entry}": words} if words else {}

    def group(self, name: str) -> str:
        return self.shares or name

    def init(self, key: Array, batch: Batch) -> Tree:
        return init_params(self.network, key, batch[self.entry])

    def null(self, batch: Batch) -> Batch:
        if f"null_{self.entry}" in batch:
            return {self.entry: batch[f"null_{self.entry}"]}
        tokens = batch[self.entry]
        if len(self.empty) > tokens.shape[1]:
            raise UserError(f"The empty text {self.empty} is longer than the texts of the data, {tokens.shape[1]} ids.")
        filled = jnp.full(tokens.shape[1:], self.pad, tokens.dtype).at[: len(self.empty)].set(jnp.asarray(self.empty))
        return {self.entry: jnp.broadcast_to(filled, tokens.shape)}

    def __call__(
        self, params: Tree, batch: Batch, keys: Key[Array, " B"] | None, shape: tuple[int, ...], train: bool = False
    ) -> Batch:
        tokens = batch[self.entry]
        masks = (tokens != self.pad,) if self.mask_padding else ()
        outputs = apply_params(self.network, params, tokens, *masks)
        features, *others = outputs if isinstance(outputs, tuple) else (outputs,)
        found: Batch = {}
        if self.context:
            found["context"] = self._scaled(features)
            found |= {"context_mask": masks[0]} if masks else {}
        if self.pooled and not others:
            raise UserError(
                f"{path_of(self) or 'config.method.parts'}.pooled is set, and {type(self.network).__name__} gives the "
                "features of tokens alone: name a text encoder that pools them too, such as text_tower."
            )
        return found | ({"vector": self._scaled(others[0])} if self.pooled else {})

    def _scaled(self, features: Array) -> Array:
        features = features.astype(jnp.float32)
        return jax.nn.standardize(features, axis=-1) if self.normalise else features
