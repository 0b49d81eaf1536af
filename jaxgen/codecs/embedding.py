"""Diffuses a vector of the batch, such as the CLIP embedding of an image (Ramesh et al. 2022, unCLIP's prior)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Float

from jaxgen.arrays import Array, Batch, Tree
from jaxgen.build import path_of
from jaxgen.codecs.base import Codec, Draw, Shape
from jaxgen.errors import UserError


@dataclasses.dataclass(frozen=True)
class Embedding(Codec):
    """Diffuses an entry [B, D] of the batch, times a number; samples are vectors, and no images.

    Attributes:
      width: D.
      entry: the entry, float32 [B, D].
      scale: what vectors are multiplied by, so that their values have a standard deviation close to 1; that is the
        square root of D for vectors of length 1.
      unit: whether samples are brought to length 1, which embeddings of CLIP have.
    """

    width: int
    entry: str = "embedding"
    scale: float = 1.0
    unit: bool = False

    gives: ClassVar[str] = "embedding"
    bounded: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.width < 1 or not self.scale > 0:
            raise UserError(f"An embedding has a width and a scale above 0, not {self.width} and {self.scale}.")

    def shape(self, image_shape: Shape) -> Shape:
        return (self.width,)

    def entries(self, image_shape: Shape) -> Mapping[str, tuple[Shape, DTypeLike]]:
        return {self.entry: ((self.width,), np.float32)}

    def encode(self, params: Tree, batch: Batch, memory: Tree | None, draw: Draw | None = None) -> Float[Array, "B D"]:
        found = batch[self.entry]
        if found.shape[1:] != (self.width,):
            raise UserError(
                f"{path_of(self) or 'config.method.codec'} has width={self.width}, and the data's entry {self.entry!r} "
                f"has the shape {found.shape}: it must be [B, {self.width}]."
            )
        return found * self.scale

    def decode(self, params: Tree, x: Float[Array, "B D"], memory: Tree | None) -> Float[Array, "B D"]:
        if self.unit:
            return x / jnp.maximum(jnp.linalg.norm(x, axis=-1, keepdims=True), 1e-12)
        return x / self.scale
