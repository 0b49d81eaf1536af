"""An image set as a network sees it: what all numbers about the set are made from."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from jaxgen.errors import UserError
from jaxgen.metrics.features import Features
from jaxgen.metrics.frechet import Moments


@dataclasses.dataclass(frozen=True)
class Summary:
    """Attributes:
    n: images. moments: of their features, float64.
    features: `[N, D]`, or None where only the moments were kept. probabilities: `[N, K]`, or None.
    """

    n: int
    moments: Moments
    features: np.ndarray | None = None
    probabilities: np.ndarray | None = None

    @classmethod
    def of(cls, seen: Features) -> Summary:
        """Of features that are all there."""
        return cls(len(seen.features), Moments.of(seen.features), seen.features, seen.probabilities)


def summarise(see: Callable[[np.ndarray], Features], batches: Iterable[np.ndarray], keep: bool) -> Summary:
    """One pass over uint8 batches `[B, H, W, C]`; a set need not fit in memory.

    Args:
      see: a network. keep: whether features are kept, and not their moments alone.

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


def in_batches(images: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """Consecutive parts of an array, the last one smaller."""
    for start in range(0, len(images), size):
        yield images[start : start + size]
