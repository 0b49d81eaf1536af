"""Compares the layouts that are read from samples with the layouts that they were drawn for."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import numpy as np
from jaxtyping import Int, UInt8

from jaxgen.errors import UserError
from jaxgen.metrics.analysis.regions import read_regions
from jaxgen.metrics.analysis.segmentation import confusion_matrix, mean_iou, pixel_accuracy
from jaxgen.metrics.base import RunFacts, RunMetric
from jaxgen.metrics.images import EvaluationImages
from jaxgen.metrics.networks.base import FeatureNetwork
from jaxgen.metrics.score import Score


class PixelLabeller:
    """A pixel labeller says which class each pixel of an image shows. Derive a frozen dataclass from this class."""

    def check(self, shape: tuple[int, int, int]) -> None:
        """Raises a UserError for images `(H, W, C)` that it cannot read. It is called before training."""

    def __call__(self, images: UInt8[np.ndarray, "N H W C"]) -> Int[np.ndarray, "N H W"]:
        """Returns the number of the class of each pixel."""
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class Hues(PixelLabeller):
    """Reads the classes of `regions` by their hues."""

    classes: int = 6

    def __post_init__(self) -> None:
        if self.classes < 2:
            raise UserError(f"the labeller 'hues' tells at least 2 classes apart, not {self.classes}.")

    def check(self, shape: tuple[int, int, int]) -> None:
        if shape[2] != 3:
            raise UserError(f"the labeller 'hues' sees images of 3 channels, and these have {shape[2]}.")

    def __call__(self, images: UInt8[np.ndarray, "N H W C"]) -> Int[np.ndarray, "N H W"]:
        return read_regions(images, self.classes)


@dataclasses.dataclass(frozen=True)
class LayoutIou(RunMetric):
    """The mean intersection over union of the classes that a labeller sees in samples with those that were asked for.

    `layout_accuracy` is the share of pixels that are right, and `layout_accuracy_uniform` that of the layouts with one
    class everywhere, where there are any. The floor is what the labeller sees in the true images.
    """

    labeller: PixelLabeller = Hues()
    ignore: int | None = None  # pixels of this number in the layouts are not counted

    needs: ClassVar[frozenset[str]] = frozenset({"truth"})
    better = "higher"
    note = "What a labeller sees in the samples; the floor is what it sees in the true images."

    def check_run(self, facts: RunFacts) -> None:
        facts.need("mask", self)
        self.labeller.check(facts.shape)

    def scores(self, images: EvaluationImages, network: FeatureNetwork | None) -> dict[str, Score]:
        asked = images.asked["mask"]
        uniform = (asked == asked[:, :1, :1]).all(axis=(1, 2))
        sides = {"samples": images.samples, "floor": images.truth, "noise": images.noise}
        seen = {side: self.labeller(shown) for side, shown in sides.items()}
        numbers: dict[str, tuple[dict[str, float], int]] = {}
        for name, chosen, number in (
            ("layout_iou", np.ones(len(asked), bool), lambda matrix: mean_iou(matrix).value),
            ("layout_accuracy", np.ones(len(asked), bool), pixel_accuracy),
            ("layout_accuracy_uniform", uniform, pixel_accuracy),
        ):
            if chosen.any():
                of = {side: number(self._matrix(asked[chosen], labels[chosen])) for side, labels in seen.items()}
                numbers[name] = of, int(chosen.sum())
        return {
            name: Score(
                of["samples"], count, f"{images.held_out_name}, 'mask'", floor=of["floor"],
                noise=None if of["noise"] == of["floor"] else of["noise"], better="higher", note=self.note,
                reference_n=count, floor_n=count,
            )
            for name, (of, count) in numbers.items()
        }  # fmt: skip

    def _matrix(self, asked: np.ndarray, seen: np.ndarray) -> np.ndarray:
        counted = asked[asked != self.ignore] if self.ignore is not None else asked
        classes = int(max(counted.max(initial=0), seen.max())) + 1
        return confusion_matrix(asked, seen, classes, self.ignore)
