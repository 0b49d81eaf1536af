"""Tells a network a vector of the batch, such as the CLIP embedding of an image."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Key

from jaxgen.arrays import Array, Batch, Tree
from jaxgen.build import path_of
from jaxgen.conditions.base import Condition
from jaxgen.errors import UserError


@dataclasses.dataclass(frozen=True)
class Embedding(Condition):
    """Gives an entry [B, D] as `vector` and, by a learned projection, as tokens of `context`; the null is zero.

    With both and four tokens it is the condition of unCLIP's decoder (Ramesh et al. 2022, section 2.1).

    Attributes:
      entry: the entry of the batch, float32 [B, D].
      vector: whether the network is given the vector itself.
      tokens: how many tokens of context are made of it; 0 makes none.
      width: features of a token, the network's `context_dim`.
      size: the width D of the entry; 0 takes that of the data, which a plan does not see.
    """

    entry: str = "embedding"
    vector: bool = True
    tokens: int = 0
    width: int = 0
    size: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.tokens < 0 or (self.tokens > 0) != (self.width > 0) or not (self.vector or self.tokens):
            raise UserError(
                "An embedding of config.method.parts gives a vector, or tokens of a width above 0, or both; it has "
                f"vector={self.vector}, tokens={self.tokens} and width={self.width}."
            )

    @property
    def learns(self) -> bool:
        return self.tokens > 0

    @property
    def entries(self) -> tuple[str, ...]:
        return (self.entry,)

    @property
    def gives(self) -> tuple[str, ...]:
        return (*(("vector",) if self.vector else ()), *(("context",) if self.tokens else ()))

    @property
    def shapes(self) -> Mapping[str, tuple[tuple[int, ...], DTypeLike]]:
        return {self.entry: ((self.size,), "float32")} if self.size else {}

    def group(self, name: str) -> str:
        return name if self.tokens else ""

    def init(self, key: Array, batch: Batch) -> Tree:
        size = self.size or batch[self.entry].shape[-1]
        kernel = jax.random.normal(key, (size, self.tokens * self.width)) * size**-0.5
        return {"tokens": {"kernel": kernel, "bias": jnp.zeros(self.tokens * self.width)}}

    def null(self, batch: Batch) -> Batch:
        return {self.entry: jnp.zeros_like(batch[self.entry])}

    def __call__(
        self, params: Tree, batch: Batch, keys: Key[Array, " B"] | None, shape: tuple[int, ...], train: bool = False
    ) -> Batch:
        value = batch[self.entry]
        if value.ndim != 2:
            raise UserError(
                f"{path_of(self) or 'config.method.parts'} reads the entry {self.entry!r} as vectors [B, D], and it "
                f"has the shape {value.shape}."
            )
        if self.size and value.shape[1] != self.size:
            raise UserError(
                f"{path_of(self) or 'config.method.parts'} has size={self.size}, and the entry {self.entry!r} has "
                f"vectors of {value.shape[1]} numbers: set it to that, or use the embeddings that it was made for."
            )
        found: Batch = {"vector": value.astype(jnp.float32)} if self.vector else {}
        if self.tokens:
            layer = params["tokens"]
            tokens = value.astype(jnp.float32) @ layer["kernel"] + layer["bias"]
            found["context"] = tokens.reshape(len(value), self.tokens, self.width)
        return found
