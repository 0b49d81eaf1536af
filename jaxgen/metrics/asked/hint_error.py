"""Says how well samples keep to a condition that was made of an image, such as its edges or a small copy."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np
from jaxtyping import Float

from jaxgen.errors import UserError, nearest
from jaxgen.metrics.base import Metric, RunFacts, RunMetric
from jaxgen.metrics.images import EvaluationImages
from jaxgen.metrics.networks.base import FeatureNetwork
from jaxgen.metrics.score import Score


@dataclasses.dataclass(frozen=True)
class HintError(RunMetric):
    """The hint error is the distance between a condition and what the same corruption makes of the sample.

    It is the root of the mean squared difference of values in [-1, 1], averaged over the samples. A sample that keeps
    to its edges, its small copy or its known part has 0, as the true image has; this says nothing of the rest.
    """

    entry: str = ""  # the condition, such as "hint"; "" takes the only one that a corruption makes

    needs: ClassVar[frozenset[str]] = frozenset({"hints"})
    numbers = ("hint_error",)
    note = "Of values in [-1, 1]; the true images have 0."

    def check_run(self, facts: RunFacts) -> None:
        check_entry(self, self.entry, facts.hints)

    def scores(self, images: EvaluationImages, network: FeatureNetwork | None) -> dict[str, Score]:
        if images.corrupted is None:
            raise UserError("'hint_error' needs the corruptions that made the conditions, and there are none.")
        found = images.corrupted(images.samples)
        entry = self.entry or next(name for name, values in found.items() if values.dtype.kind == "f")
        error = hint_error(images.asked, found, entry)
        noise = hint_error(images.asked, images.corrupted(images.noise), entry)
        return {
            "hint_error": Score(
                float(error.mean()), len(error), f"{images.held_out_name}, {entry!r}", floor=0.0,
                noise=float(noise.mean()) or None, note=self.note, std=float(error.std()), reference_n=len(error),
            )
        }  # fmt: skip


def check_entry(metric: Metric, entry: str, hints: Sequence[str]) -> None:
    """Raises a UserError unless corruptions make the condition `entry`, or, where that is "", one condition alone."""
    if entry and entry not in hints:
        raise UserError(
            f"{metric.name!r} has entry={entry!r}, which no corruption makes for this model; {nearest(entry, hints)}"
        )
    if not entry and len(hints) > 1:
        raise UserError(f"{metric.name!r} needs an entry: corruptions make {', '.join(hints)} for this model.")


def hint_error(asked: Mapping[str, np.ndarray], found: Mapping[str, np.ndarray], entry: str) -> Float[np.ndarray, " N"]:
    """Returns `[N]` roots of the mean squared differences of an entry, `[N, ...]` in [-1, 1]."""
    difference = (asked[entry].astype(np.float64) - found[entry]).reshape(len(found[entry]), -1)
    return np.sqrt(np.square(difference).mean(axis=1))
