"""Compares the embeddings that a method gives with the true ones."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from jaxgen.metrics.base import RunFacts, RunMetric
from jaxgen.metrics.images import EvaluationImages
from jaxgen.metrics.networks.base import FeatureNetwork
from jaxgen.metrics.pairs.clip_score import cosines
from jaxgen.metrics.score import Score


class CosineSimilarity(RunMetric):
    """The cosine similarity of an embedding and the true one, averaged over the samples.

    Embeddings of one set are often alike, so that the number alone says little: the note has the cosines between
    samples and the embeddings of other examples.
    """

    needs = frozenset({"truth"})
    measures: ClassVar[frozenset[str]] = frozenset({"embedding"})
    better = "higher"
    numbers = ("cosine_similarity",)

    def check_run(self, facts: RunFacts) -> None:
        facts.need(facts.truth, self)

    def scores(self, images: EvaluationImages, network: FeatureNetwork | None) -> dict[str, Score]:
        ours, truth = images.samples, images.truth
        found, others = cosines(ours, truth), cosines(ours, np.roll(truth, 1, axis=0))
        noise = cosines(np.random.default_rng(0).normal(size=truth.shape), truth)
        return {
            "cosine_similarity": Score(
                float(found.mean()), len(found), f"{images.held_out_name}, in pairs", noise=float(noise.mean()),
                better="higher", note=f"With the embeddings of other examples: {others.mean():.3g}.",
                std=float(found.std()), reference_n=len(found),
            )
        }  # fmt: skip
