"""Gives a picture to a network that steers another one: contours, a depth map, a sketch (ControlNet)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Key

from jaxgen.arrays import Array, Batch, Tree
from jaxgen.build import path_of
from jaxgen.conditions.base import Condition
from jaxgen.conditions.image import pictures_of, resized


@dataclasses.dataclass(frozen=True)
class Hint(Condition):
    """Gives a picture of the batch as `hint_<entry>` [B, H, W, C] in [0, 1]; the null is black.

    For a model of videos it may be a video, [B, F, h, w, C], whose frames steer the frames; a picture steers them all.

    The graft `control` adds this condition to the method that it is put on.

    Attributes:
      entry: the entry of the batch that has the picture, float32 [B, h, w, C] in [-1, 1] of any size.
      factor: the picture is resized to so many times the sides of what is diffused, 8 for the latents of Stable
        Diffusion.
      size: `(H, W, C)` of pictures that are given at sampling, where no data say it.
    """

    entry: str = "hint"
    factor: int = 1
    size: tuple[int, int, int] | None = None

    @property
    def entries(self) -> tuple[str, ...]:
        return (self.entry,)

    @property
    def gives(self) -> tuple[str, ...]:
        return (slot_of(self.entry),)

    @property
    def shapes(self) -> Mapping[str, tuple[tuple[int, ...], DTypeLike]]:
        return {} if self.size is None else {self.entry: (self.size, "float32")}

    def null(self, batch: Batch) -> Batch:
        return {self.entry: jnp.full_like(batch[self.entry], -1)}

    def __call__(
        self, params: Tree, batch: Batch, keys: Key[Array, " B"] | None, shape: tuple[int, ...], train: bool = False
    ) -> Batch:
        given, where = batch[self.entry], path_of(self) or "a hint"
        size = tuple(self.factor * side for side in shape[:2])
        if given.ndim == 5:
            picture = pictures_of({self.entry: given.reshape(-1, *given.shape[2:])}, self.entry, where)
            found = (resized(picture, size, "linear") + 1) / 2
            return {slot_of(self.entry): found.reshape(*given.shape[:2], *found.shape[1:])}
        return {slot_of(self.entry): (resized(pictures_of(batch, self.entry, where), size, "linear") + 1) / 2}


def slot_of(entry: str) -> str:
    """Returns the name of the input of a network that has the hint of this entry."""
    return f"hint_{entry}"
