"""Measures how well masks agree, by a confusion matrix and the numbers that are read from it.

Matrices of batches are added.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from jaxgen.errors import UserError


class MeanIou(NamedTuple):
    """Holds the mean intersection over union, and the classes that do not occur.

    Attributes:
      value: the mean in [0, 1], over the classes that occur.
      absent: classes in neither the labels nor the predictions.
    """

    value: float
    absent: tuple[int, ...]


def confusion_matrix(
    labels: Int[np.ndarray, "*shape"],
    predictions: Int[np.ndarray, "*shape"],
    classes: int,
    ignore: int | None = None,
) -> Int[np.ndarray, "classes classes"]:
    """Returns int64 `[classes, classes]`: how many pixels of a class (row) were predicted as which (column).

    Args:
      labels, predictions: integers of any equal shape, such as masks `[N, H, W]`.
      ignore: pixels with this label are left out, no matter what was predicted there.

    Raises:
      UserError: for unequal shapes, masks that are not integers, or classes out of range.
    """
    labels, predictions = np.asarray(labels), np.asarray(predictions)
    if labels.shape != predictions.shape:
        raise UserError(f"Masks are compared at equal shapes, not {labels.shape} and {predictions.shape}.")
    if not all(np.issubdtype(mask.dtype, np.integer) for mask in (labels, predictions)):
        raise UserError(f"Masks hold integers, not {labels.dtype} and {predictions.dtype}.")
    if ignore is not None:
        counted = labels != ignore
        labels, predictions = labels[counted], predictions[counted]
    for name, mask in (("labels", labels), ("predictions", predictions)):
        if mask.size and not 0 <= mask.min() <= mask.max() < classes:
            raise UserError(f"The {name} hold classes {mask.min()} to {mask.max()}; give 0 to {classes - 1}.")
    pairs = labels.astype(np.int64).ravel() * classes + predictions.ravel()
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)


def class_iou(matrix: Int[np.ndarray, "classes classes"]) -> Float[np.ndarray, " classes"]:
    """Returns `[classes]` intersections over unions (Jaccard); NaN for a class in neither labels nor predictions."""
    matrix = _matrix(matrix)
    shared = np.diagonal(matrix)
    union = matrix.sum(axis=0) + matrix.sum(axis=1) - shared
    return np.where(union > 0, shared / np.maximum(union, 1), np.nan)


def mean_iou(matrix: Int[np.ndarray, "classes classes"]) -> MeanIou:
    """Returns the mean of `class_iou` over the classes that occur, and which do not.

    A class that is only predicted counts, with 0. Compute it from the matrix of all batches: the mean of the batches'
    values is another number.
    """
    values = class_iou(matrix)
    absent = np.isnan(values)
    return MeanIou(float(values[~absent].mean()), tuple(int(c) for c in np.flatnonzero(absent)))


def pixel_accuracy(matrix: Int[np.ndarray, "classes classes"]) -> float:
    """Share of counted pixels that were predicted right."""
    matrix = _matrix(matrix)
    return float(np.trace(matrix) / matrix.sum())


def _matrix(matrix: np.ndarray) -> np.ndarray:
    matrix = np.asarray(matrix)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not matrix.sum():
        raise UserError("A confusion matrix is square and counts at least one pixel; was every pixel ignored?")
    return matrix
