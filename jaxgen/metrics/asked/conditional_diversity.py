"""Says how much samples under one condition differ from each other."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterable
from typing import ClassVar

import numpy as np
from jaxtyping import Float

from jaxgen.errors import UserError
from jaxgen.metrics.base import RunFacts, RunMetric
from jaxgen.metrics.images import EvaluationImages
from jaxgen.metrics.networks.base import FeatureNetwork
from jaxgen.metrics.pairs.base import PairMetric
from jaxgen.metrics.pairs.pixels import L2
from jaxgen.metrics.score import Score

Pair = tuple[np.ndarray, np.ndarray]
Distance = Callable[[np.ndarray, np.ndarray], Float[np.ndarray, " N"]]


@dataclasses.dataclass(frozen=True)
class ConditionalDiversity(RunMetric):
    """The conditional diversity is the mean distance of two samples under one condition, over that of two true images.

    0 is a model that gives one answer, and 1 one that does not look at its condition. The floor is the mean distance
    of a sample and the true image of its condition (of two real images of one class, where the condition is a class),
    over the same: the true image is one more draw of the true posterior, so that a perfect model has its floor as its
    number. A number below the floor means too little diversity, or errors that are common to all samples. Where the
    condition has a mask, all distances are of the unknown part.
    """

    draws: int = 4  # samples under each condition
    num: int = 50  # conditions
    distance: PairMetric = L2()  # or "l1", "lpips", ...

    needs: ClassVar[frozenset[str]] = frozenset({"conditions"})
    better = None
    numbers: ClassVar[tuple[str, ...]] = ("conditional_diversity",)
    least: ClassVar[int] = 2

    def __post_init__(self) -> None:
        if self.draws < 2 or self.num < 2:
            raise UserError(
                "'conditional_diversity' compares at least 2 draws of at least 2 conditions, not "
                f"draws={self.draws} and num={self.num}."
            )
        if self.distance.better != "lower":
            raise UserError(
                f"'conditional_diversity' needs a distance, such as 'l2' or 'lpips'; {self.distance.name!r} is none."
            )

    @property
    def repeated(self) -> tuple[int, int]:
        return self.num, self.draws

    def check_run(self, facts: RunFacts) -> None:
        self.distance.check_size(facts.shape, facts.source)

    def scores(self, images: EvaluationImages, network: FeatureNetwork | None) -> dict[str, Score]:
        if images.draws is None:
            raise UserError("'conditional_diversity' needs several samples under one condition, and there are none.")
        draws = images.draws[: self.num, : self.draws]
        count, distance = len(draws), self._distance(images, len(draws))
        columns = [draws[:, k] for k in range(draws.shape[1])]
        within = _means(distance(x, y) for x, y in itertools.combinations(columns, 2))
        of_real, own = _real_pairs(images, count)
        between = float(_means(distance(x, y) for x, y in of_real).mean())
        if not between:
            raise UserError("'conditional_diversity' has no unit here: the true images of all conditions are equal.")
        floor = None
        if own is not None:
            of_one = [own] if isinstance(own, tuple) else [(x, own) for x in columns]
            floor = float(_means(distance(x, y) for x, y in of_one).mean()) / between
        noise = float(distance(images.noise[:count], np.roll(images.noise[:count], 1, axis=0)).mean()) / between
        note = (
            f"{draws.shape[1]} draws of each of {count} conditions, {self.distance.name}: {within.mean():.3g} between "
            f"draws, {between:.3g} between true images. A perfect model has the floor."
        )
        return {
            "conditional_diversity": Score(
                float(within.mean()) / between, count, images.held_out_name, floor=floor,
                noise=None if noise == floor else noise, better=None, note=note, std=float(within.std()) / between,
                reference_n=count, floor_n=None if floor is None else count,
            )
        }  # fmt: skip

    def _distance(self, images: EvaluationImages, count: int) -> Distance:
        """Returns the distance of the images of the first conditions, in their unknown part where there is a mask."""
        unknown = images.unknown
        if unknown is None or not self.distance.has_regions:
            return self.distance.values
        return lambda a, b: self.distance.values_inside(a, b, unknown[:count])


def _means(values: Iterable[np.ndarray]) -> np.ndarray:
    """Returns the mean for each condition; those of which no number is to be had, with an empty mask, are left out."""
    found = np.mean(list(values), axis=0)
    return found[~np.isnan(found)]


def _real_pairs(images: EvaluationImages, count: int) -> tuple[list[Pair], np.ndarray | Pair | None]:
    """Returns pairs of real images of different conditions, and real images of the same condition.

    The latter are the true image of each condition, or two different real images of each condition's class; None where
    neither is known.
    """
    if images.entry in images.asked:
        truth = images.truth[:count]
        return [(truth, np.roll(truth, k, axis=0)) for k in range(1, min(4, count))], truth
    chance, real, labels = np.random.default_rng(0), images.held_out, images.held_out_labels
    others = [chance.choice(len(real), 2, replace=False) for _ in range(count)]
    between = [(real[[i for i, _ in others]], real[[j for _, j in others]])]
    if images.labels is None or labels is None:
        return between, None
    members = [np.flatnonzero(labels == label) for label in images.labels[:count]]
    if min(map(len, members)) < 2:
        return between, None
    same = [chance.choice(rows, 2, replace=False) for rows in members]
    return between, (real[[i for i, _ in same]], real[[j for _, j in same]])
