"""Tells a network the classes of images."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import jax.numpy as jnp
from jaxtyping import Key

from jaxgen.arrays import Array, Batch, Tree
from jaxgen.conditions.base import Condition


@dataclasses.dataclass(frozen=True)
class Label(Condition):
    """Gives `label` int32 [B]; the null is the class `num_classes`, for which networks have a row of their own.

    A method tells labels to a network that has classes without this part, which is for a dropout of their own.

    Attributes:
      num_classes: the number of classes; from the config's data.
    """

    num_classes: int

    entries = ("label",)
    gives = ("label",)

    @property
    def limits(self) -> Mapping[str, int]:
        return {"label": self.num_classes}

    def null(self, batch: Batch) -> Batch:
        return {"label": jnp.full_like(batch["label"], self.num_classes)}

    def __call__(
        self, params: Tree, batch: Batch, keys: Key[Array, " B"] | None, shape: tuple[int, ...], train: bool = False
    ) -> Batch:
        return {"label": batch["label"]}
