"""Holds the contract of a condition: what a diffusion model is told."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import ClassVar, NamedTuple

import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Key

from jaxgen.arrays import Array, Batch, Tree
from jaxgen.errors import UserError


class Known(NamedTuple):
    """Holds what of images is known before they are drawn.

    Attributes:
      picture: float32 [B, H, W, C], the image where it is known.
      unknown: bool [B, H, W, 1], where it is not.
    """

    picture: Array
    unknown: Array

    def pasted(self, images: Array) -> Array:
        """Returns images in which the known part is that of the picture."""
        return jnp.where(self.unknown, images, self.picture)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Condition:
    """A condition turns entries of a batch into inputs of a denoising network.

    Derive a frozen dataclass from this class. It is a part of a diffusion method, `config.method.parts.<name>`, and the
    name is the part's own.

    A condition always has a null, the entries that stand for no condition. Whether the network learns it, and whether
    guidance may use it, are two facts: in training it takes the place of the entries with the probability `dropout`,
    and guidance leads away from it where there was such training, in this run or in one before.

    Attributes:
      dropout: the share of training examples that have the null in place of their entries.
      knows_null: the network was taught the null before, so that guidance needs no `dropout`.
    """

    dropout: float = 0.0
    knows_null: bool = False

    network_needs: ClassVar[Mapping[str, tuple[str, ...]]] = {}  # `{field: attributes}` that it reads of its networks

    def __post_init__(self) -> None:
        if not 0 <= self.dropout < 1:
            raise UserError(f"The dropout of a part of config.method.parts is a share below 1, not {self.dropout}.")

    @property
    def entries(self) -> tuple[str, ...]:
        """Returns the entries of a batch that it reads."""
        raise NotImplementedError

    @property
    def gives(self) -> tuple[str, ...]:
        """Returns the names of the inputs that it gives to a network, those of `jaxgen.networks.layers.contract`.

        Several conditions may give `vector`, `condition` or `context`, which `jaxgen.conditions.parts` joins; another
        input has one giver.
        """
        raise NotImplementedError

    @property
    def learns(self) -> bool:
        """Returns whether it has parameters that are trained; those that are not come from `config.init_from`."""
        return False

    @property
    def guides(self) -> bool:
        """Returns whether guidance may use the null."""
        return self.knows_null or self.dropout > 0

    @property
    def shapes(self) -> Mapping[str, tuple[tuple[int, ...], DTypeLike]]:
        """Returns `(shape without the batch axis, dtype)` of entries that the condition determines."""
        return {}

    @property
    def limits(self) -> Mapping[str, int]:
        """Returns `{entry: count}` of whole numbers that are looked up in a table: each is in [0, count)."""
        return {}

    def group(self, name: str) -> str:
        """Returns the name of the part's parameters; "" where it has none. Parts that name the same group share it."""
        return ""

    def init(self, key: Array, batch: Batch) -> Tree:
        """Returns fresh parameters."""
        return {}

    def null(self, batch: Batch) -> Batch:
        """Returns `{entry: array}` that stands for no condition, of the shapes in the batch."""
        raise NotImplementedError

    def known(self, batch: Batch) -> Known | None:
        """Returns the picture of which a part is known to be the image's; None where the condition knows of none."""
        return None

    def __call__(
        self, params: Tree, batch: Batch, keys: Key[Array, " B"] | None, shape: tuple[int, ...], train: bool = False
    ) -> Batch:
        """Returns `{input of the network: array}`, of the names in `gives`.

        Args:
          params: those of the part's group.
          batch: with the entries that it reads.
          keys: one random key for each example; None where a condition that draws cannot be used.
          shape: the shape of what is diffused, such as (H, W, C), to which pictures are resized.
          train: whether this is training.
        """
        raise NotImplementedError
