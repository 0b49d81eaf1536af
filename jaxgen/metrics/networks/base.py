"""The contract of a feature network says what a metric sees of images."""

from __future__ import annotations

import abc
import dataclasses
import hashlib
from typing import ClassVar

import jax
import numpy as np
from jaxtyping import Float, UInt8

from jaxgen.arrays import Tree
from jaxgen.errors import UserError


@dataclasses.dataclass(frozen=True)
class Features:
    """Holds what a network gives for a set of images.

    Attributes:
      features: floating `[N, D]`.
      probabilities: `[N, K]` over the network's classes, each row's sum 1, or None.
    """

    features: Float[np.ndarray, "N D"]
    probabilities: Float[np.ndarray, "N K"] | None = None


class FeatureNetwork(abc.ABC):
    """Turns uint8 images into features.

    `config.evaluate.network`, and `--network` of `python -m jaxgen.metrics`, name a class that derives from this one;
    its fields are its options.

    Attributes:
      name: the last word of the names of numbers (`frechet_digits`), and in their records.
      gives: what a metric may ask of it, of "moments" and "features" (every network), "probabilities" and "maps".
      keeps_reference: whether what it sees of held-out images is kept on the disk, which is for slow networks.
    """

    name: ClassVar[str]
    gives: ClassVar[frozenset[str]] = frozenset({"moments", "features"})
    keeps_reference: ClassVar[bool] = False

    @property
    def resize(self) -> str:
        """Says in words how images come to the network's size; it is "none" where other sizes are refused.

        A class may have a field or a plain string of this name instead.
        """
        return "none"

    @property
    def width(self) -> int | None:
        """Returns how many features an image has, or None where a class does not say so before it sees one."""
        return None

    @property
    @abc.abstractmethod
    def digest(self) -> str:
        """Returns the first 16 hexadecimal digits of a SHA-256 of the weights; see `digest` of this module."""

    @abc.abstractmethod
    def __call__(self, images: UInt8[np.ndarray, "N H W C"], batch: int = 100) -> Features:
        """Returns the features of uint8 images `[N, H, W, C]`. An image's row depends on that image alone."""

    @property
    def published(self) -> bool:
        """Returns whether the Fréchet distance in these features is what others call FID."""
        return False

    def check_shape(self, shape: tuple[int, ...]) -> None:
        """Raises a UserError where the network cannot see images of a shape (H, W, C).

        By default every shape is accepted; a network of one size overrides this.
        """
        return None

    def see_sizes(self, images: list[UInt8[np.ndarray, "H W C"]], batch: int = 100) -> Features:
        """Returns the features of images `[H, W, C]` whose sizes differ.

        Networks that resize override this: each image comes to the network's size alone, and no program is compiled
        twice.

        Raises:
          UserError: where the network sees images of one size only.
        """
        raise UserError(f"The network {self.name!r} sees images of one size only; give --resolution.")

    def see(
        self, images: UInt8[np.ndarray, "B H W C"] | list[UInt8[np.ndarray, "H W C"]], batch: int = 100
    ) -> Features:
        """Returns the features of one batch: an array `[B, H, W, C]`, or a list of `[H, W, C]` whose sizes differ."""
        return self.see_sizes(images, batch) if isinstance(images, list) else self(images, batch)

    def maps(self, images: UInt8[np.ndarray, "N H W C"], batch: int = 100) -> Float[np.ndarray, "N h w D"]:
        """Returns spatial features `[N, h, w, D]` of uint8 images at their own size, where `gives` names "maps"."""
        raise UserError(f"The network {self.name!r} gives no spatial features.")

    def open(self) -> None:
        """Reads the weights now. What is missing is then said before there are images.

        Raises:
          UserError: for weights that cannot be had.
        """
        self.digest  # noqa: B018


def digest(weights: Tree) -> str:
    """Returns the first 16 hexadecimal digits of a SHA-256 over names, shapes, types and bytes of a tree of arrays."""
    found = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(weights):
        array = np.ascontiguousarray(leaf)
        found.update(f"{jax.tree_util.keystr(path)} {array.dtype.str} {array.shape}".encode())
        found.update(array.tobytes())
    return found.hexdigest()[:16]
