"""Metrics of images in pairs, or with a caption each, give one number per pair; the mean is reported."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from jaxtyping import Bool, Float, UInt8

from jaxgen.errors import UserError
from jaxgen.metrics.base import Metric, RunFacts, RunMetric
from jaxgen.metrics.networks.base import FeatureNetwork
from jaxgen.metrics.score import Score
from jaxgen.metrics.sets import ImageBatch, ImageSet
from jaxgen.metrics.summary import Summary, in_batches

if TYPE_CHECKING:
    from jaxgen.metrics.images import EvaluationImages


class _OfARun(RunMetric):
    """These metrics compare two sets on the command line and, of a run, samples with what they were drawn for."""

    @property
    def numbers(self) -> tuple[str, ...]:
        return (self.name,)


class PairMetric(_OfARun, abc.ABC):
    """A pair metric computes a number of two images from their pixels.

    Of a run these are a sample and the true image of the held-out example whose condition it was drawn for. The number
    of two videos is the mean over their frames. Where the condition has a mask, `<name>_unknown` is the number of the
    part that was unknown.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"pairs"})
    measures: ClassVar[frozenset[str]] = frozenset({"image", "video"})

    def numbers_of(self, facts: RunFacts) -> tuple[str, ...]:
        return (*self.numbers, *([f"{self.name}_unknown"] if facts.masked and self.has_regions else []))

    def check_run(self, facts: RunFacts) -> None:
        facts.need(facts.truth, self)
        self.check_size(facts.shape, facts.source)

    def scores(self, images: EvaluationImages, network: FeatureNetwork | None) -> dict[str, Score]:
        """Returns the mean over the samples; `noise` is that of noise in their place, `floor` that of real images.

        The real images are those whose conditions are the most similar (`EvaluationImages.neighbours`).
        """
        found = {self.name: self._of_run(images, self._of_frames)}
        unknown = images.unknown
        if unknown is not None and self.has_regions:

            def inside(a: np.ndarray, b: np.ndarray) -> np.ndarray:
                values = self.values_inside(a, b, unknown[: len(a)])
                return values[~np.isnan(values)]

            if unknown.any():
                found[f"{self.name}_unknown"] = self._of_run(images, inside, " Of the unknown part alone.")
        return found

    def _of_run(
        self, images: EvaluationImages, values: Callable[[np.ndarray, np.ndarray], np.ndarray], note: str = ""
    ) -> Score:
        truth, others = images.truth, images.neighbours
        found = values(images.samples, truth)
        floor = None if others is None else _mean_of(values(others, truth[: len(others)]))
        noise = _mean_of(values(images.noise, truth))
        score = _score(self, found, f"{images.held_out_name}, in pairs", len(found), self.look(), noise)
        return _with_floor(score, floor, 0 if others is None else len(others), note)

    def _of_frames(self, a: np.ndarray, b: np.ndarray) -> Float[np.ndarray, " N"]:
        """Returns `[N]` numbers of images, or of videos `[N, F, H, W, C]`."""
        found = self.values(a.reshape(-1, *a.shape[-3:]), b.reshape(-1, *b.shape[-3:]))
        return found.reshape(len(a), -1).mean(axis=1)

    @abc.abstractmethod
    def values(
        self, a: UInt8[np.ndarray, "N H W C"], b: UInt8[np.ndarray, "N H W C"], batch: int = 100
    ) -> Float[np.ndarray, " N"]:
        """Returns `[N]` numbers of uint8 images `[N, H, W, C]` and their partners, with `batch` images in a program."""

    @property
    def has_regions(self) -> bool:
        """Returns whether the number is also defined of a part of an image, by `values_inside`."""
        return type(self).values_inside is not PairMetric.values_inside

    def values_inside(
        self, a: UInt8[np.ndarray, "N H W C"], b: UInt8[np.ndarray, "N H W C"], region: Bool[np.ndarray, "N H W"],
        batch: int = 100,
    ) -> Float[np.ndarray, " N"]:  # fmt: skip
        """Returns `[N]` numbers of the pixels of a region; NaN where that is empty, or holds too little.

        A class that does not define it has numbers of whole images alone.
        """
        raise NotImplementedError

    def check_size(self, shape: tuple[int, int, int], name: str) -> None:
        """Raises a UserError for images `(H, W, C)` of the set `name` that the metric does not see."""

    def look(self) -> dict[str, Any]:
        """Returns the fields of a `Score` that name the metric's network; none where it compares pixels."""
        return {}


class FeaturePairMetric(_OfARun, abc.ABC):
    """A feature pair metric computes a number of two images from their features in a network."""

    needs: ClassVar[frozenset[str]] = frozenset({"pairs", "features"})

    def check_run(self, facts: RunFacts) -> None:
        facts.need(facts.truth, self)

    def scores(self, images: EvaluationImages, network: FeatureNetwork | None) -> dict[str, Score]:
        """Returns the mean over the samples and the true images of the examples that they were drawn for."""
        if network is None:
            raise UserError(f"{self.name} needs a feature network, and none is given.")
        truth = Summary.of(network(images.truth))
        found, bad = (self.values(images.summary(network, side), truth) for side in ("samples", "noise"))
        name = f"{images.held_out_name}, in pairs"
        score, others = _score(self, found, name, len(found), _look_of(network), _mean_of(bad)), images.neighbours
        if others is None:
            return {self.name: score}
        real = self.values(Summary.of(network(others)), Summary.of(network(images.truth[: len(others)])))
        return {self.name: _with_floor(score, _mean_of(real), len(others))}

    @abc.abstractmethod
    def values(self, a: Summary, b: Summary) -> Float[np.ndarray, " N"]:
        """Returns `[N]` numbers of the images of two sets of equal size, in order."""


class CaptionMetric(_OfARun, abc.ABC):
    """A caption metric computes a number of an image and its caption; of a run, the one that it was drawn for."""

    needs: ClassVar[frozenset[str]] = frozenset({"captions"})

    def check_run(self, facts: RunFacts) -> None:
        facts.need("caption", self)

    def scores(self, images: EvaluationImages, network: FeatureNetwork | None) -> dict[str, Score]:
        captions = [str(text) for text in images.asked["caption"]]
        return {self.name: self.score(in_batches(images.samples, 100), captions)}

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
    name, count = f"{reference.name} ({reference.count}), in pairs", reference.count
    return {
        metric.name: _score(metric, np.concatenate(found[metric.name]), name, count, metric.look())
        for metric in metrics
    }


def compare_features(
    metrics: Sequence[FeaturePairMetric], reference: ImageSet, a: Summary, b: Summary, network: FeatureNetwork
) -> dict[str, Score]:
    """Returns means over the pairs of two sets that `check_pairs` has passed, from their features in `network`."""
    look, name = _look_of(network), f"{reference.name} ({reference.count}), in pairs"
    return {metric.name: _score(metric, metric.values(a, b), name, reference.count, look) for metric in metrics}


def _look_of(network: FeatureNetwork) -> dict[str, Any]:
    return {"network": network.name, "digest": network.digest, "resize": network.resize}


def _with_floor(score: Score, floor: float | None, count: int, note: str = "") -> Score:
    """Returns a score with the number of real images; without noise where that has the same number."""
    if floor is not None:
        note += f" Floor: {count} other real images, those with the most similar conditions."
    noise = None if score.noise == floor else score.noise
    return dataclasses.replace(
        score, floor=floor, floor_n=count if floor is not None else None, noise=noise, note=score.note + note
    )


def _mean_of(values: np.ndarray) -> float | None:
    """Returns the mean; None where it is not finite, or of nothing."""
    return float(values.mean()) if len(values) and np.isfinite(values).all() else None


def _score(
    metric: Metric, values: np.ndarray, reference: str, count: int, look: dict[str, Any], noise: float | None = None
) -> Score:
    """Returns the mean, with the standard deviation between the pairs."""
    note, infinite = metric.note, int(np.isinf(values).sum())
    if infinite:
        note += f" {infinite} of {len(values)} pairs are equal, where it is infinite."
    return Score(
        float(values.mean()), n=count, reference=reference, noise=noise, better=metric.better, note=note,
        std=None if infinite else float(values.std()), reference_n=count, **look,
    )  # fmt: skip
