"""Says how well a classifier that learns from samples alone does on real images."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import numpy as np

from jaxgen.errors import UserError
from jaxgen.metrics.analysis.classification import classification_accuracy_score
from jaxgen.metrics.base import RunFacts, RunMetric
from jaxgen.metrics.images import EvaluationImages
from jaxgen.metrics.networks.base import FeatureNetwork
from jaxgen.metrics.score import Score
from jaxgen.networks.classifier import Classifier


@dataclasses.dataclass(frozen=True)
class ClassificationAccuracyScore(RunMetric):
    """The classification accuracy score is a real-image accuracy of a classifier trained on samples and their labels.

    Ravuri & Vinyals (2019), with a small network; see `classification_accuracy_score`. The floor is that of a
    classifier that learned from as many training images, and noise that of one that learned from noise.
    """

    steps: int = 500  # of each classifier's training
    widths: tuple[int, ...] = (16, 32, 32)  # channels of its convolutions

    needs: ClassVar[frozenset[str]] = frozenset({"labels"})
    better = "higher"
    numbers: ClassVar[tuple[str, ...]] = ("classification_accuracy_score",)
    least: ClassVar[int] = 2

    def __post_init__(self) -> None:
        if self.steps < 1 or not self.widths:
            raise UserError(
                f"'classification_accuracy_score' needs at least one step and one convolution, not steps={self.steps} "
                f"and widths={self.widths}."
            )

    def check_run(self, facts: RunFacts) -> None:
        facts.need("label", self)

    def scores(self, images: EvaluationImages, network: FeatureNetwork | None) -> dict[str, Score]:
        held, labels = images.held_out_labels, images.labels
        if labels is None or held is None:
            raise UserError(f"{self.name!r} needs samples and held-out images with labels.")
        classifier = Classifier(num_classes=int(max(labels.max(), held.max())) + 1, widths=self.widths)
        count, real = len(labels), None
        if images.train_labels is not None:
            chosen = np.random.default_rng(0).permutation(len(images.train))[:count]
            real = images.train[chosen], images.train_labels[chosen]
        test = images.held_out, held
        found = classification_accuracy_score(images.samples, labels, *test, classifier, self.steps, real=real)
        noise = classification_accuracy_score(images.noise, labels, *test, classifier, self.steps).samples.value
        floor = found.real.value if found.real else None
        note = f"A classifier with convolutions of {self.widths} channels, after {self.steps} steps."
        return {
            "classification_accuracy_score": Score(
                found.samples.value, count, images.held_out_name, floor=floor, noise=None if noise == floor else noise,
                better="higher", note=note, reference_n=len(held), floor_n=len(real[0]) if real else None,
            )
        }  # fmt: skip
