"""The Inception score says how sure a classifier is of each sample, and how evenly the classes come."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.special import rel_entr

from jaxgen.errors import UserError
from jaxgen.metrics.base import SetMetric, Value
from jaxgen.metrics.summary import Summary


class InceptionScore(SetMetric):
    """The Inception score works with any network that gives class probabilities; see `inception_score`."""

    needs = frozenset({"probabilities"})
    better = "higher"
    note = "Mean of ten splits."
    least = 10
    against = False

    def value(self, samples: Summary, reference: Summary) -> Value:
        return Value(*inception_score(samples.known_probabilities))


class ScoreOfSplits(NamedTuple):
    """Holds the Inception score and its deviation between splits.

    Attributes:
      mean: the mean over the splits, in [1, K].
      std: the standard deviation between the splits.
    """

    mean: float
    std: float


def inception_score(probabilities: Float[np.ndarray, "N K"], splits: int = 10, seed: int | None = 0) -> ScoreOfSplits:
    """Returns exp(E KL(p(y | x) || p(y))) (Salimans et al. 2016, Section 4), the mean over equal parts of the samples.

    It knows nothing of real images: one perfect image per class reaches the maximum K. It grows with the number of
    samples in a part.

    Args:
      probabilities: `[N, K]`, each row a law over the classes. For the published number they are those of the
        Inception of the FID, whose logits have no bias.
      splits: number of parts, at most N.
      seed: seed of the random order in which samples come to the parts; None keeps their order, which is wrong for
        samples that are sorted by class.

    Raises:
      UserError: for rows that are no laws, or fewer rows than parts.
    """
    probabilities = np.asarray(probabilities, np.float64)
    if probabilities.ndim != 2 or not probabilities.size:
        raise UserError(f"The Inception score takes class probabilities [N, K], not {probabilities.shape}.")
    if not ((probabilities >= 0).all() and np.allclose(probabilities.sum(axis=1), 1, atol=1e-3)):
        raise UserError("The Inception score needs probabilities: no number below 0, and each row's sum 1.")
    if not 1 <= splits <= len(probabilities):
        raise UserError(f"{len(probabilities)} samples cannot be split into {splits} parts; use fewer parts.")
    if seed is not None:
        probabilities = probabilities[np.random.default_rng(seed).permutation(len(probabilities))]
    edges = np.arange(splits + 1) * len(probabilities) // splits
    scores = [_score(probabilities[i:j]) for i, j in zip(edges[:-1], edges[1:], strict=True)]
    return ScoreOfSplits(float(np.mean(scores)), float(np.std(scores)))


def _score(probabilities: np.ndarray) -> float:
    divergence = rel_entr(probabilities, probabilities.mean(axis=0)).sum(axis=1)  # 0 log 0 = 0
    return float(np.exp(divergence.mean()))
