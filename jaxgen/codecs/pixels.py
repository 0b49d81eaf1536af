"""Diffuses the pixels of images."""

from __future__ import annotations

import dataclasses

from jaxtyping import Float

from jaxgen.arrays import Array, Batch, Tree
from jaxgen.codecs.base import Codec, Draw, Shape


@dataclasses.dataclass(frozen=True)
class Pixels(Codec):
    """Diffuses images as they are."""

    def shape(self, image_shape: Shape) -> Shape:
        return image_shape

    def encode(
        self, params: Tree, batch: Batch, memory: Tree | None, draw: Draw | None = None
    ) -> Float[Array, "B H W C"]:
        return batch["image"]

    def decode(self, params: Tree, x: Float[Array, "B H W C"], memory: Tree | None) -> Float[Array, "B H W C"]:
        return x
