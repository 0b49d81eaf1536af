"""Holds the contract of a codec: how images become what is diffused, and back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from jax.typing import DTypeLike
from jaxtyping import Float

from jaxgen.arrays import Array, Batch, Tree

Draw = Callable[[tuple[int, ...]], Array]  # a shape -> standard normal noise
Shape = tuple[int, ...]


class Codec:
    """A codec says what is diffused of an image, and how an image is made of it again.

    Derive a frozen dataclass from this class.

    Attributes:
      gives: what `decode` returns, "image" or another of `jaxgen.methods.base.Method.gives`.
      group: the name of the codec's parameters, which are frozen and given by `config.init_from.<group>`; "" has none.
      random: whether `encode` draws noise. A method then splits a random key for it.
      bounded: whether values lie within [-1, 1], as those of images do. If not, no sampler may clip, and scores have
        the standard deviation of all values, which should be close to 1.
      network_needs: `{field: names of attributes}`, what it reads of its networks beside calling them.
    """

    gives: ClassVar[str] = "image"
    group: ClassVar[str] = ""
    random: ClassVar[bool] = False
    bounded: ClassVar[bool] = True
    network_needs: ClassVar[Mapping[str, tuple[str, ...]]] = {}

    @property
    def factor(self) -> int:
        """Returns the number by which the sides of images are divided."""
        return 1

    def shape(self, image_shape: Shape) -> Shape:
        """Returns the shape of what is diffused of an image of shape `(H, W, C)`."""
        raise NotImplementedError

    def init(self, key: Array, image_shape: Shape) -> Tree:
        """Returns fresh parameters of `group`, for their shapes."""
        return {}

    def fresh_memory(self) -> Tree | None:
        """Returns the shape of the memory that comes with the parameters of `group`; None where there is none."""
        return None

    def check(self, memory: Tree | None) -> None:
        """Raises a UserError where the memory that came with `group` lacks what the codec reads of it."""

    def entries(self, image_shape: Shape) -> Mapping[str, tuple[Shape, DTypeLike]]:
        """Returns `(shape without the batch axis, dtype)` of what it reads of a batch beside `image`."""
        return {}

    def encode(
        self, params: Tree, batch: Batch, memory: Tree | None, draw: Draw | None = None
    ) -> Float[Array, "B ..."]:
        """Returns what is diffused of a batch's images.

        Args:
          params: those of `group`.
          batch: with `image` [B, H, W, C] in [-1, 1].
          memory: what came with `group`.
          draw: gives noise of a shape, where the codec is `random`; None for the most likely values.
        """
        raise NotImplementedError

    def decode(self, params: Tree, x: Float[Array, "B ..."], memory: Tree | None) -> Float[Array, "B H W C"]:
        """Returns the images, in [-1, 1], of what was diffused, or what else `gives` says."""
        raise NotImplementedError


def values_of(codec: Codec, params: Mapping[str, Any], memory: Mapping[str, Any]) -> tuple[Tree, Tree | None]:
    """Returns the codec's own parameters and memory, of those of all groups."""
    return (params[codec.group], memory.get(codec.group)) if codec.group else ({}, None)
