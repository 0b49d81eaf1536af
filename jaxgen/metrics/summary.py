"""A summary is an image set as a network sees it: all numbers about the set are made from it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sized
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Float, Int, UInt8

from jaxgen.errors import UserError
from jaxgen.metrics.moments import Moments
from jaxgen.metrics.networks.base import Features

T = TypeVar("T")
B = TypeVar("B", bound=Sized)


@dataclasses.dataclass(frozen=True, eq=False)
class Summary:
    """Holds what a network has seen of a set of images.

    Attributes:
      n: the number of images.
      moments: the moments of their features, float64.
      features: `[N, D]`, or None where only the moments were kept.
      probabilities: `[N, K]`, or None.
      labels: int `[N]`, the classes that samples were asked for, or that real images have; or None.
    """

    n: int
    moments: Moments
    features: Float[np.ndarray, "N D"] | None = None
    probabilities: Float[np.ndarray, "N K"] | None = None
    labels: Int[np.ndarray, " N"] | None = None
    _shared: dict[tuple[Any, ...], Any] = dataclasses.field(default_factory=dict, init=False, repr=False)

    @classmethod
    def of(cls, seen: Features, labels: Int[np.ndarray, " N"] | None = None) -> Summary:
        """Returns the summary of features that are all in memory."""
        return cls(len(seen.features), Moments.of(seen.features), seen.features, seen.probabilities, labels)

    @property
    def kept_features(self) -> Float[np.ndarray, "N D"]:
        """Returns the features `[N, D]`. Raises a UserError where only their moments were kept."""
        return _known(self.features, "features")

    @property
    def known_probabilities(self) -> Float[np.ndarray, "N K"]:
        """Returns the class probabilities `[N, K]`. Raises a UserError where the network gives none."""
        return _known(self.probabilities, "class probabilities")

    @property
    def known_labels(self) -> Int[np.ndarray, " N"]:
        """Returns the labels `[N]`. Raises a UserError where the images have none."""
        return _known(self.labels, "labels")

    def shared(self, what: tuple[Any, ...], other: Summary, make: Callable[[], T]) -> T:
        """Returns the result of `make`, computed once for this summary, `other` and `what`: metrics share work."""
        key = (*what, other)
        if key not in self._shared:
            self._shared[key] = make()
        return self._shared[key]


def _known(values: np.ndarray | None, what: str) -> np.ndarray:
    if values is None:
        raise UserError(f"The summary of these images holds no {what}.")
    return values


def summarise(see: Callable[[B], Features], batches: Iterable[B], keep: bool) -> Summary:
    """Returns the summary of a set in one pass over uint8 batches; the set need not fit in memory.

    Args:
      batches: uint8 `[B, H, W, C]`, or lists of images `[H, W, C]` where `see` takes those.
      see: a network, or its `see`.
      keep: whether the features are kept, and not their moments alone.

    Raises:
      UserError: where there is no image.
    """
    moments, count, features, probabilities = None, 0, [], []
    for images in batches:
        seen = see(images)
        moments = Moments.of(seen.features) if moments is None else moments.add(seen.features)
        count += len(images)
        if keep:
            features.append(seen.features)
        if seen.probabilities is not None:
            probabilities.append(seen.probabilities)
    if moments is None:
        raise UserError("There is no image to summarise.")
    return Summary(
        count,
        moments,
        np.concatenate(features) if keep else None,
        np.concatenate(probabilities) if probabilities else None,
    )


def in_batches(images: UInt8[np.ndarray, "N H W C"], size: int) -> Iterator[UInt8[np.ndarray, "B H W C"]]:
    """Yields consecutive parts of an array, the last one smaller."""
    for start in range(0, len(images), size):
        yield images[start : start + size]
