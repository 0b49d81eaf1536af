"""Compares the tokens that a method gives with the true ones."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from jaxgen.metrics.base import RunFacts, RunMetric
from jaxgen.metrics.images import EvaluationImages
from jaxgen.metrics.networks.base import FeatureNetwork
from jaxgen.metrics.score import Score


class TokenAccuracy(RunMetric):
    """The token accuracy is the share of positions at which a sample has the true token."""

    needs = frozenset({"truth"})
    measures: ClassVar[frozenset[str]] = frozenset({"tokens"})
    better = "higher"
    numbers = ("token_accuracy",)
    note = "Padding counts as any other token."

    def check_run(self, facts: RunFacts) -> None:
        facts.need(facts.truth, self)

    def scores(self, images: EvaluationImages, network: FeatureNetwork | None) -> dict[str, Score]:
        truth = images.truth
        right = (images.samples == truth).mean(axis=1)
        others = float((images.samples == np.roll(truth, 1, axis=0)).mean())
        return {
            "token_accuracy": Score(
                float(right.mean()), len(right), f"{images.held_out_name}, in pairs", better="higher",
                note=f"{self.note} With the tokens of other examples: {others:.3g}.", std=float(right.std()),
                reference_n=len(right),
            )
        }  # fmt: skip
