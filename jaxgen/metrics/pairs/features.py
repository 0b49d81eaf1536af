"""Computes distances between paired images in a network's features."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from jaxgen.errors import UserError
from jaxgen.metrics.pairs.base import FeaturePairMetric
from jaxgen.metrics.pairwise import features_of
from jaxgen.metrics.summary import Summary


class FeatureL2(FeaturePairMetric):
    """The distance is the Euclidean one of the two images' features; see `l2_distance`."""

    note = "Mean Euclidean distance of the two images' features."

    def values(self, a: Summary, b: Summary) -> Float[np.ndarray, " N"]:
        return l2_distance(a.kept_features, b.kept_features)


def l1_distance(a: Float[np.ndarray, "N D"], b: Float[np.ndarray, "N D"]) -> Float[np.ndarray, " N"]:
    """Returns `[N]` sums of absolute differences of paired features `[N, D]`; divide by D for the mean.

    Raises:
      UserError: for unequal shapes or values that are not finite.
    """
    return np.abs(_difference(a, b)).sum(axis=1)


def l2_distance(a: Float[np.ndarray, "N D"], b: Float[np.ndarray, "N D"]) -> Float[np.ndarray, " N"]:
    """Returns `[N]` Euclidean distances of paired features `[N, D]`, neither squared nor averaged.

    Raises as `l1_distance`.
    """
    return np.sqrt(np.square(_difference(a, b)).sum(axis=1))


def _difference(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    a, b = features_of("A distance of pairs", a, b)
    if len(a) != len(b):
        raise UserError(f"Distances are between pairs; {len(a)} and {len(b)} examples make none.")
    return a.astype(np.float64) - b
