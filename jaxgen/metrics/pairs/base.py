"""Metrics of images in pairs, or with a caption each, give one number per pair; the mean is reported."""

from __future__ import annotations

import abc
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float, UInt8

from jaxgen.errors import UserError
from jaxgen.metrics.base import Metric
from jaxgen.metrics.networks.base import FeatureNetwork
from jaxgen.metrics.score import Score
from jaxgen.metrics.sets import ImageBatch, ImageSet
from jaxgen.metrics.summary import Summary


class PairMetric(Metric, abc.ABC):
    """A pair metric computes a number of two images from their pixels."""

    needs: ClassVar[frozenset[str]] = frozenset({"pairs"})

    @abc.abstractmethod
    def values(
        self, a: UInt8[np.ndarray, "N H W C"], b: UInt8[np.ndarray, "N H W C"], batch: int = 100
    ) -> Float[np.ndarray, " N"]:
        """Returns `[N]` numbers of uint8 images `[N, H, W, C]` and their partners, with `batch` images in a program."""

    def check_size(self, shape: tuple[int, int, int], name: str) -> None:
        """Raises a UserError for images `(H, W, C)` of the set `name` that the metric does not see."""

    def look(self) -> dict[str, Any]:
        """Returns the fields of a `Score` that name the metric's network; none where it compares pixels."""
        return {}


class FeaturePairMetric(Metric, abc.ABC):
    """A feature pair metric computes a number of two images from their features in a network."""

    needs: ClassVar[frozenset[str]] = frozenset({"pairs", "features"})

    @abc.abstractmethod
    def values(self, a: Summary, b: Summary) -> Float[np.ndarray, " N"]:
        """Returns `[N]` numbers of the images of two sets of equal size, in order."""


class CaptionMetric(Metric, abc.ABC):
    """A caption metric computes a number of an image and its caption."""

    needs: ClassVar[frozenset[str]] = frozenset({"captions"})

    @abc.abstractmethod
    def score(self, batches: Iterable[ImageBatch], captions: Sequence[str], batch: int = 100) -> Score:
        """Returns the mean over the images of `batches`, with `batch` images in a program."""


def check_pairs(a: ImageSet, b: ImageSet, metrics: Sequence[Metric]) -> None:
    """Raises a UserError for unequal numbers of images, and sizes that a metric cannot compare. Reads no image."""
    if a.count != b.count:
        raise UserError(
            f"{', '.join(metric.name for metric in metrics)} compare images in pairs: {a.name!r} has {a.count} and "
            f"{b.name!r} {b.count}; give as many of each, in the order of their names."
        )
    of_pixels = [metric for metric in metrics if isinstance(metric, PairMetric)]
    if not of_pixels:
        return
    if a.shape is None or a.shape != b.shape:
        sizes = " and ".join("several sizes" if s.shape is None else "x".join(map(str, s.shape)) for s in (a, b))
        raise UserError(f"Pixels are compared in images of one size, not of {sizes}; give --resolution.")
    for metric in of_pixels:
        metric.check_size(a.shape, a.name)


def compare_pixels(
    metrics: Sequence[PairMetric], reference: ImageSet, pairs: Iterable[tuple[ImageBatch, ImageBatch]], batch: int = 100
) -> dict[str, Score]:
    """Returns means over the pairs of two sets that `check_pairs` has passed, in one pass over both.

    Args:
      reference: the second set.
      pairs: batches of the two sets, side by side.
      batch: number of images in a program.

    Raises:
      UserError: for weights that cannot be had, and images that a metric refuses.
    """
    found: dict[str, list[np.ndarray]] = {metric.name: [] for metric in metrics}
    for x, y in pairs if metrics else ():
        if isinstance(x, list) or isinstance(y, list):
            raise UserError("Pixels are compared in images of one size, not of several; give --resolution.")
        for metric in metrics:
            found[metric.name].append(metric.values(x, y, batch))
    return {
        metric.name: _mean(metric, np.concatenate(found[metric.name]), reference, metric.look()) for metric in metrics
    }


def compare_features(
    metrics: Sequence[FeaturePairMetric], reference: ImageSet, a: Summary, b: Summary, network: FeatureNetwork
) -> dict[str, Score]:
    """Returns means over the pairs of two sets that `check_pairs` has passed, from their features in `network`."""
    look = {"network": network.name, "digest": network.digest, "resize": network.resize}
    return {metric.name: _mean(metric, metric.values(a, b), reference, look) for metric in metrics}


def _mean(metric: Metric, values: np.ndarray, reference: ImageSet, look: dict[str, Any]) -> Score:
    """Returns the mean, with the standard deviation between the pairs."""
    count, note = reference.count, metric.note
    infinite = int(np.isinf(values).sum())
    if infinite:
        note += f" {infinite} of {len(values)} pairs are equal, where it is infinite."
    return Score(
        float(values.mean()), n=count, reference=f"{reference.name} ({count}), in pairs", better=metric.better,
        note=note, std=None if infinite else float(values.std()), reference_n=count, **look,
    )  # fmt: skip
