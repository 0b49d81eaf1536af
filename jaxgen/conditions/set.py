"""Shows a network a few pictures of one class, by an encoder of sets that learns with it."""

from __future__ import annotations

import dataclasses

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Key

from jaxgen.arrays import Array, Batch, Tree
from jaxgen.build import path_of
from jaxgen.conditions.base import Condition
from jaxgen.errors import UserError
from jaxgen.networks.layers.stateless import apply_params, init_params


@dataclasses.dataclass(frozen=True)
class Set(Condition):
    """Gives what an encoder says of a set of pictures: tokens as `context` [B, L, D], and a `vector` [B, D].

    It is the condition of few-shot diffusion (Giannone et al. 2022, "Few-Shot Diffusion Models", section 3): a network
    attends to the tokens of the set, and the vector scales and shifts its normalisations. The null is a set of mid-grey
    pictures. Sets may have another size at sampling than in training.

    Attributes:
      network: pictures `[B, K, H, W, C]` -> `(tokens [B, L, D], vector [B, D])`.
      entry: the entry of the batch that has the sets, float32 [B, K, H, W, C] in [-1, 1].
      context: whether the network is given the tokens.
      vector: whether it is given the vector.
      least: the fewest pictures of a set. One picture does not show what a class leaves open, so it is 2, unless the
        model is meant to learn from single pictures.
    """

    network: nn.Module
    entry: str = "set"
    context: bool = True
    vector: bool = True
    least: int = 2

    network_needs = {"network": ("encodes_sets",)}

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (self.context or self.vector):
            raise UserError("A set of config.method.parts gives a context, or a vector, or both: set one of them.")
        if self.least < 1:
            raise UserError(f"The fewest pictures of a set of config.method.parts are 1 or more, not {self.least}.")

    @property
    def learns(self) -> bool:
        return True

    @property
    def entries(self) -> tuple[str, ...]:
        return (self.entry,)

    @property
    def gives(self) -> tuple[str, ...]:
        return (*(("context",) if self.context else ()), *(("vector",) if self.vector else ()))

    def group(self, name: str) -> str:
        return name

    def init(self, key: Array, batch: Batch) -> Tree:
        return init_params(self.network, key, self._pictures(batch))

    def null(self, batch: Batch) -> Batch:
        return {self.entry: jnp.zeros_like(batch[self.entry])}

    def __call__(
        self, params: Tree, batch: Batch, keys: Key[Array, " B"] | None, shape: tuple[int, ...], train: bool = False
    ) -> Batch:
        tokens, vector = apply_params(self.network, params, self._pictures(batch))
        given = {"context": tokens, "vector": vector}
        return {name: given[name].astype(jnp.float32) for name in self.gives}

    def _pictures(self, batch: Batch) -> Array:
        pictures, here = batch[self.entry], path_of(self) or "config.method.parts"
        if pictures.ndim != 5:
            raise UserError(
                f"{here} reads the entry {self.entry!r} as sets of pictures [B, K, H, W, C], and it has the shape "
                f"{pictures.shape}: config.data.source='sets:<source>' makes sets."
            )
        if pictures.shape[1] < self.least:
            count = pictures.shape[1]
            raise UserError(
                f"{here} reads sets of at least {self.least} pictures, and this one has {count}: give a folder with "
                "more pictures of the class, or larger sets of the data (config.data.options.size)."
            )
        return pictures.astype(jnp.float32)
