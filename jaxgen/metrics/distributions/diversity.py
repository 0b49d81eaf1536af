"""Measures how far the images of a set are from each other in features."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

from jaxgen.errors import UserError
from jaxgen.metrics.pairwise import BLOCK, features_of, tiles


def diversity(features: Float[np.ndarray, "N D"], block: int = BLOCK) -> float:
    """Returns the mean Euclidean distance between two different examples of `[N, D]`; it is 0 for copies of one image.

    It is not an agreement with data: noise is diverse. Hold it against the same number of real images.

    Raises:
      UserError: for fewer than two rows or values that are not finite.
    """
    (features,) = features_of("Diversity", features)
    count = len(features)
    if count < 2:
        raise UserError("Diversity needs at least two examples.")
    total = sum(np.sqrt(squares).sum() for _, _, squares in tiles(features, features, block))
    return float(total / (count * (count - 1)))  # a row is at exactly 0 from itself


def class_diversity(
    features: Float[np.ndarray, "N D"], labels: Int[np.ndarray, " N"], block: int = BLOCK
) -> dict[int, float]:
    """`diversity` within each class, by label; its mean over the classes is what few-shot papers call intra-class.

    Classes of a single example have none and are left out.

    Args:
      features: `[N, D]`.
      labels: int `[N]`.

    Raises:
      UserError: for unequal lengths, no class of two, or values that are not finite.
    """
    features, labels = np.asarray(features), np.asarray(labels)
    if labels.shape != features.shape[:1]:
        raise UserError(f"Diversity by class needs one label per example, not {labels.shape} for {len(features)}.")
    classes, counts = np.unique(labels, return_counts=True)
    if not (counts > 1).any():
        raise UserError("Diversity by class needs a class with at least two examples.")
    return {int(c): diversity(features[labels == c], block) for c in classes[counts > 1]}
