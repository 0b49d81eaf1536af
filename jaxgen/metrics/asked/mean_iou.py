"""Compares the masks that a method gives with the true ones."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import numpy as np

from jaxgen.metrics.analysis.segmentation import class_iou, confusion_matrix, mean_iou
from jaxgen.metrics.base import RunFacts, RunMetric
from jaxgen.metrics.images import EvaluationImages
from jaxgen.metrics.networks.base import FeatureNetwork
from jaxgen.metrics.score import Score


@dataclasses.dataclass(frozen=True)
class MeanIou(RunMetric):
    """The mean intersection over union (Jaccard) of masks, over the classes, from the pixels of all samples together.

    Its noise is that of the most frequent class everywhere. `pixel_accuracy` is the share of pixels that are right.
    """

    ignore: int | None = None  # pixels of this number in the true masks are not counted

    needs: ClassVar[frozenset[str]] = frozenset({"truth"})
    measures: ClassVar[frozenset[str]] = frozenset({"mask"})
    better = "higher"
    numbers = ("mean_iou", "pixel_accuracy")

    def check_run(self, facts: RunFacts) -> None:
        facts.need(facts.truth, self)

    def scores(self, images: EvaluationImages, network: FeatureNetwork | None) -> dict[str, Score]:
        truth, samples = images.truth, images.samples
        counted = truth[truth != self.ignore] if self.ignore is not None else truth
        classes = int(max(counted.max(initial=0), samples.max())) + 1
        matrix = confusion_matrix(truth, samples, classes, self.ignore)
        most = np.full_like(samples, matrix.sum(axis=1).argmax())
        alone = confusion_matrix(truth, most, classes, self.ignore)
        each = ", ".join(f"{i}: {value:.3f}" for i, value in enumerate(class_iou(matrix)) if np.isfinite(value))
        count, name = len(samples), f"{images.held_out_name}, in pairs"

        def score(value: float, noise: float, note: str) -> Score:
            return Score(value, count, name, floor=1.0, noise=noise, better="higher", note=note, reference_n=count)

        accuracy, trivial = (float(np.trace(m) / m.sum()) for m in (matrix, alone))
        return {
            "mean_iou": score(mean_iou(matrix).value, mean_iou(alone).value, f"Of the classes, {each}."),
            "pixel_accuracy": score(accuracy, trivial, "Share of pixels."),
        }
