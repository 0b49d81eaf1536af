"""Tells outliers from data by a score, and says what rejecting them does to accuracy.

Scores are high for what should be rejected: bits per dimension, the negative log-likelihood, one minus a
classifier's confidence.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, UInt8
from scipy.stats import rankdata

from jaxgen.errors import UserError


def auroc(inside: Float[np.ndarray, " N"], outside: Float[np.ndarray, " M"]) -> float:
    """Returns the share of pairs in which the outlier scores higher; ties count half (Hanley & McNeil 1982).

    0.5 is chance; below it, outliers look more reasonable than the data, which is called a reversal.

    Args:
      inside, outside: finite or infinite scores `[N]`, `[M]` of data and of outliers.

    Raises:
      UserError: for an empty side or a score that is not a number.
    """
    inside, outside = _scores(inside), _scores(outside)
    ranks = rankdata(np.concatenate([inside, outside]))
    n, m = len(inside), len(outside)
    # the Mann-Whitney statistic of the outliers
    return float((ranks[n:].sum() - m * (m + 1) / 2) / (n * m))


def typicality(scores: Float[np.ndarray, " N"], training: Float[np.ndarray, " M"]) -> Float[np.ndarray, " N"]:
    """Returns `[N]` distances of scores `[N]` from the training data's median score (Nalisnick et al. 2019).

    The `[M]` scores are those of training data, one image each. A distance is high for images that are less probable
    than the data and for those that are more probable, so a reversal does no harm.
    """
    return np.abs(_scores(scores) - np.median(_scores(training)))


def accuracy_rejection(
    scores: Float[np.ndarray, " N"], correct: Bool[np.ndarray, " N"], rejected: Float[np.ndarray, " K"]
) -> Float[np.ndarray, " K"]:
    """Returns `[K]` accuracies on what is accepted when these shares of all inputs are rejected, highest scores first.

    Nadeem et al. (2009), accuracy-rejection curves; any label given to an outlier is a wrong one.

    Args:
      scores: `[N]` of all inputs, data and outliers together.
      correct: `[N]` bool, whether each got its right label.
      rejected: `[K]` shares in [0, 1); at least one input is accepted. Of equal scores a part may be rejected;
        the accuracy is then the mean over all choices of that part.

    Raises:
      UserError: for lengths that differ, or shares outside [0, 1).
    """
    scores, correct, rejected = _scores(scores), np.asarray(correct, bool), np.asarray(rejected, np.float64)
    if scores.shape != correct.shape:
        raise UserError(f"An accuracy-rejection curve needs as many scores as labels, not {scores.shape}.")
    if not ((rejected >= 0) & (rejected < 1)).all():
        raise UserError("Rejected shares lie in [0, 1).")
    # within a tie every input is as correct as the tie's mean
    _, group = np.unique(scores, return_inverse=True)
    means = np.bincount(group, weights=correct) / np.bincount(group)
    order = np.argsort(scores, kind="stable")
    right = np.cumsum(means[group][order])
    accepted = np.maximum(np.round((1 - rejected) * len(scores)).astype(int), 1)
    return right[accepted - 1] / accepted


def permuted(images: UInt8[np.ndarray, "N H W C"], seed: int = 0) -> UInt8[np.ndarray, "N H W C"]:
    """Returns uint8 images `[N, H, W, C]` with their pixels in another order, the same for all images.

    The histograms stay the same.
    """
    height, width = _shape(images)
    order = np.random.default_rng(seed).permutation(height * width)
    return images.reshape(len(images), height * width, -1)[:, order].reshape(images.shape)


def rotated(images: UInt8[np.ndarray, "N H W C"], turns: int = 1) -> UInt8[np.ndarray, "N H W C"]:
    """Returns square uint8 images `[N, H, W, C]` turned by so many quarters to the left."""
    height, width = _shape(images)
    if height != width:
        raise UserError(f"Images of {height}x{width} cannot be turned by a quarter; use square ones.")
    return np.ascontiguousarray(np.rot90(images, turns, axes=(1, 2)))


def cropped(images: UInt8[np.ndarray, "N H W C"], share: float = 0.5) -> UInt8[np.ndarray, "N H W C"]:
    """Returns the middle of uint8 images `[N, H, W, C]`, this share of each side, enlarged to the old size.

    The enlargement is bilinear.
    """
    if not 0 < share <= 1:
        raise UserError(f"The share of a crop is in (0, 1], but this one is {share}.")
    for axis, size in zip((1, 2), _shape(images), strict=True):
        # centres of the new pixels in the old image's coordinates
        at = (np.arange(size) + 0.5 - size / 2) * share + size / 2 - 0.5
        at = np.clip(at, 0, size - 1)
        low = np.minimum(at.astype(int), max(size - 2, 0))
        part = np.expand_dims(at - low, tuple(i for i in range(4) if i != axis))
        high = np.minimum(low + 1, size - 1)
        images = (1 - part) * np.take(images, low, axis) + part * np.take(images, high, axis)
    return np.clip(np.round(images), 0, 255).astype(np.uint8)


def random_noise(shape: tuple[int, ...], seed: int = 0) -> UInt8[np.ndarray, "..."]:
    """Returns uint8 images of this shape in which every value is equally likely."""
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def corrupted(images: UInt8[np.ndarray, "N H W C"], seed: int = 0) -> dict[str, UInt8[np.ndarray, "N H W C"]]:
    """Returns `{permuted, rotated, cropped, noise}`: outliers made from uint8 images `[N, H, W, C]`, of their shape."""
    return {
        "permuted": permuted(images, seed),
        "rotated": rotated(images),
        "cropped": cropped(images),
        "noise": random_noise(images.shape, seed),
    }


def _shape(images: np.ndarray) -> tuple[int, int]:
    if images.ndim != 4 or images.dtype != np.uint8:
        raise UserError(f"Outliers are made from uint8 images [N, H, W, C], not {images.dtype} {images.shape}.")
    return images.shape[1:3]


def _scores(values: np.ndarray) -> np.ndarray:
    values = np.asarray(values, np.float64)
    if values.ndim != 1 or not len(values) or np.isnan(values).any():
        raise UserError("Scores must be a list of at least one number, without NaN.")
    return values
