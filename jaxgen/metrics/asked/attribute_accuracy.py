"""Says how often samples show the attributes that were asked for, as a reader of images sees them."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import numpy as np
from jaxtyping import Int, UInt8

from jaxgen.errors import UserError
from jaxgen.metrics.analysis.shape_attributes import read_attributes
from jaxgen.metrics.base import RunFacts, RunMetric
from jaxgen.metrics.images import EvaluationImages
from jaxgen.metrics.networks.base import FeatureNetwork
from jaxgen.metrics.score import Score


class AttributeReader:
    """An attribute reader says which attributes an image shows. Derive a frozen dataclass from this class.

    Attributes:
      names: the names of the attributes, in their order.
    """

    names: ClassVar[tuple[str, ...]] = ()

    def check(self, shape: tuple[int, int, int]) -> None:
        """Raises a UserError for images `(H, W, C)` that it cannot read. It is called before training."""

    def __call__(self, images: UInt8[np.ndarray, "N H W C"]) -> Int[np.ndarray, "N A"]:
        """Returns the number of each attribute, as the entry of held-out examples has them."""
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class Shapes(AttributeReader):
    """Reads the shape, colour and position of `caption_shapes` from pixels, without a classifier."""

    names: ClassVar[tuple[str, ...]] = ("shape", "colour", "position")

    def check(self, shape: tuple[int, int, int]) -> None:
        if shape[2] != 3:
            raise UserError(f"the reader 'shapes' sees images of 3 channels, and these have {shape[2]}.")

    def __call__(self, images: UInt8[np.ndarray, "N H W C"]) -> Int[np.ndarray, "N A"]:
        return read_attributes(images)


@dataclasses.dataclass(frozen=True)
class AttributeAccuracy(RunMetric):
    """The attribute accuracy is the share of samples in which a reader sees all attributes that were asked for.

    `attribute_accuracy_<name>` is the share for one attribute. The floor is that of the true images.
    """

    reader: AttributeReader = Shapes()
    entry: str = "attributes"  # int [A] of a held-out example, or [] for one attribute

    needs: ClassVar[frozenset[str]] = frozenset({"truth"})
    better = "higher"
    note = "Share of samples; the floor is of the true images."

    @property
    def numbers(self) -> tuple[str, ...]:
        return ("attribute_accuracy", *(f"attribute_accuracy_{name}" for name in self.reader.names))

    def check_run(self, facts: RunFacts) -> None:
        facts.need(self.entry, self)
        self.reader.check(facts.shape)

    def scores(self, images: EvaluationImages, network: FeatureNetwork | None) -> dict[str, Score]:
        wanted = images.asked[self.entry].reshape(len(images.samples), -1)
        sides = {"samples": images.samples, "floor": images.truth, "noise": images.noise}
        right = {side: self.reader(seen) == wanted for side, seen in sides.items()}
        shares = {side: [values.all(axis=1).mean(), *values.mean(axis=0)] for side, values in right.items()}
        count, name = len(wanted), f"{images.held_out_name}, {self.entry!r}"
        found = {}
        for i, number in enumerate(self.numbers):
            value, floor, noise = (float(shares[side][i]) for side in sides)
            found[number] = Score(
                value, count, name, floor=floor, noise=None if noise == floor else noise, better="higher",
                note=self.note, reference_n=count, floor_n=count,
            )  # fmt: skip
        return found
