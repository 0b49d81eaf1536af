"""Says how often written captions say what their image shows, as a reader of captions understands them."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import numpy as np
from jaxtyping import Int

from jaxgen.data.sources import caption_shapes
from jaxgen.errors import UserError
from jaxgen.metrics.base import RunFacts, RunMetric
from jaxgen.metrics.images import EvaluationImages
from jaxgen.metrics.networks.base import FeatureNetwork
from jaxgen.metrics.score import Score


class CaptionReader:
    """A caption reader says which attributes a caption names. Derive a frozen dataclass from this class.

    Attributes:
      names: the names of the attributes, in their order.
    """

    names: ClassVar[tuple[str, ...]] = ()

    def text(self, tokens: Int[np.ndarray, " L"]) -> str:
        """Returns the words of one caption."""
        raise NotImplementedError

    def __call__(self, text: str) -> Int[np.ndarray, " A"]:
        """Returns the number of each attribute, as the entry of held-out examples has them; -1 where it says none."""
        raise NotImplementedError

    def sentences(self, attributes: Int[np.ndarray, " A"]) -> list[str]:
        """Returns every sentence that the data may say of an image with these attributes."""
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class Shapes(CaptionReader):
    """Reads the captions of `caption_shapes:phrases`."""

    names: ClassVar[tuple[str, ...]] = caption_shapes.ATTRIBUTES

    def text(self, tokens: Int[np.ndarray, " L"]) -> str:
        known = caption_shapes.PHRASE_TOKENIZER.size
        return caption_shapes.PHRASE_TOKENIZER.decode([number if 0 <= number < known else 2 for number in tokens])

    def __call__(self, text: str) -> Int[np.ndarray, " A"]:
        return caption_shapes.read_caption(text)

    def sentences(self, attributes: Int[np.ndarray, " A"]) -> list[str]:
        return caption_shapes.sentences(attributes)


@dataclasses.dataclass(frozen=True)
class CaptionAccuracy(RunMetric):
    """The caption accuracy is the share of captions that name all attributes of their image, and no others.

    `caption_accuracy_<name>` is the share for one attribute. `caption_exact` is the share of captions that are word for
    word one of the sentences which the data may say of the image, and `caption_same` of those that are the one sentence
    that they do say.
    """

    reader: CaptionReader = Shapes()
    entry: str = "attributes"  # int [A] of a held-out example

    needs: ClassVar[frozenset[str]] = frozenset({"truth"})
    measures: ClassVar[frozenset[str]] = frozenset({"tokens"})
    better = "higher"

    @property
    def numbers(self) -> tuple[str, ...]:
        return (
            "caption_accuracy", *(f"caption_accuracy_{name}" for name in self.reader.names), "caption_exact",
            "caption_same",
        )  # fmt: skip

    def check_run(self, facts: RunFacts) -> None:
        for entry in (self.entry, facts.truth):
            facts.need(entry, self)

    def scores(self, images: EvaluationImages, network: FeatureNetwork | None) -> dict[str, Score]:
        wanted = images.asked[self.entry]
        if wanted.ndim != 2 or wanted.shape[1] != len(self.reader.names):
            raise UserError(
                f"{self.name!r} reads {len(self.reader.names)} attributes of captions, and the entry {self.entry!r} "
                f"has the shape {wanted.shape}."
            )
        texts = [self.reader.text(row) for row in images.samples]
        right = np.array([self.reader(text) for text in texts]) == wanted
        exact = np.array([text in self.reader.sentences(row) for text, row in zip(texts, wanted, strict=True)])
        same = (images.samples == images.truth).all(axis=1)
        others = np.array([self.reader(text) for text in texts]) == np.roll(wanted, 1, axis=0)
        columns = [right.all(axis=1), *right.T, exact, same]
        chance = [others.all(axis=1), *others.T, None, None]
        found = {}
        for number, values, by_chance in zip(self.numbers, columns, chance, strict=True):
            found[number] = Score(
                float(values.mean()), len(values), f"{images.held_out_name}, in pairs", better="higher",
                noise=None if by_chance is None else float(by_chance.mean()), reference_n=len(values),
                note="Noise is the captions of other images." if by_chance is not None else "",
            )  # fmt: skip
        return found
