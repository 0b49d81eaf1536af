"""Measures fidelity and diversity apart: precision, recall, density, coverage, and the realism of single samples.

A set's manifold is the union of balls around its features, each reaching to its centre's k-th nearest neighbour in
the same set, the centre itself not counted; a ball holds its border (<=). Two sides are never interchangeable here:
`samples` are the generated images, `reference` the real ones.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from jaxgen.errors import UserError
from jaxgen.metrics.base import SetMetric, Value
from jaxgen.metrics.pairwise import BLOCK, exactly, features_of, nearest, tiles
from jaxgen.metrics.summary import Summary

BORDER = 1e-9  # so near a ball's border, relatively, a distance is taken again, exactly


class _OfNeighbours(SetMetric):
    """Holds what the metrics of balls share: each ball reaches to the k-th neighbour of its centre."""

    k: int
    better = "higher"

    def __post_init__(self) -> None:
        if self.k < 1:
            raise UserError(f"A ball reaches to the k-th neighbour, so k is at least 1, not {self.k}.")

    @property
    def least(self) -> int:
        return self.k + 1


@dataclasses.dataclass(frozen=True)
class _Balls(_OfNeighbours):
    """Holds what precision and recall share: one search for neighbours gives both."""

    k: int = 3  # a ball reaches to the k-th neighbour; 3 is the paper's

    @property
    def note(self) -> str:
        return f"Balls reach to neighbour {self.k}; compare equal n only."

    def _found(self, samples: Summary, reference: Summary) -> PrecisionRecall:
        def make() -> PrecisionRecall:
            return precision_recall(samples.kept_features, reference.kept_features, self.k)

        return samples.shared(("precision_recall", self.k), reference, make)


class Precision(_Balls):
    """Improved precision is the share of samples in the reference's manifold; see `precision_recall`."""

    def value(self, samples: Summary, reference: Summary) -> Value:
        return Value(self._found(samples, reference).precision)


class Recall(_Balls):
    """Improved recall is the share of the reference in the samples' manifold; see `precision_recall`."""

    def value(self, samples: Summary, reference: Summary) -> Value:
        return Value(self._found(samples, reference).recall)


@dataclasses.dataclass(frozen=True)
class _Near(_OfNeighbours):
    """Holds what density and coverage share: one search for neighbours gives both."""

    k: int = 5  # a ball reaches to the k-th neighbour; 5 is the paper's

    @property
    def note(self) -> str:
        return f"Balls reach to neighbour {self.k}."

    def _found(self, samples: Summary, reference: Summary) -> DensityCoverage:
        def make() -> DensityCoverage:
            return density_coverage(samples.kept_features, reference.kept_features, self.k)

        return samples.shared(("density_coverage", self.k), reference, make)


class Density(_Near):
    """Density says how many of the reference's balls hold a sample on average; see `density_coverage`."""

    def value(self, samples: Summary, reference: Summary) -> Value:
        return Value(self._found(samples, reference).density)


class Coverage(_Near):
    """Coverage is the share of the reference's balls that hold a sample; see `density_coverage`."""

    def value(self, samples: Summary, reference: Summary) -> Value:
        return Value(self._found(samples, reference).coverage)


class PrecisionRecall(NamedTuple):
    """Holds precision and recall.

    Attributes:
      precision: share of samples in the reference's manifold.
      recall: share of the reference in the samples' manifold.
    """

    precision: float
    recall: float


class DensityCoverage(NamedTuple):
    """Holds density and coverage.

    Attributes:
      density: in how many of the reference's balls a sample is on average, divided by k; it may exceed 1.
      coverage: share of the reference's balls that hold a sample.
    """

    density: float
    coverage: float


def precision_recall(
    samples: Float[np.ndarray, "N D"], reference: Float[np.ndarray, "M D"], k: int = 3, block: int = BLOCK
) -> PrecisionRecall:
    """Returns improved precision and recall (Kynkäänniemi et al. 2019, Eqs. 1 and 2) of features `[N, D]` and `[M, D]`.

    Both depend on N and M: compare numbers of equal sizes only. One stray reference image with a large ball can raise
    precision much; density is the sturdier number.

    Raises:
      UserError: for unequal widths, values that are not finite, or k not below both sizes.
    """
    samples, reference = features_of("Precision and recall", samples, reference)
    in_reference, _ = _counts(samples, reference, _radii(reference, k, block), block)
    in_samples, _ = _counts(reference, samples, _radii(samples, k, block), block)
    return PrecisionRecall(float((in_reference > 0).mean()), float((in_samples > 0).mean()))


def density_coverage(
    samples: Float[np.ndarray, "N D"], reference: Float[np.ndarray, "M D"], k: int = 5, block: int = BLOCK
) -> DensityCoverage:
    """Returns density and coverage (Naeem et al. 2020, Section 3) of features `[N, D]` and `[M, D]`.

    Two draws of one law have an expected density of 1 and, with N = M, an expected coverage near 1 - 2**-k.

    Raises:
      UserError: for unequal widths, values that are not finite, or k not below M.
    """
    samples, reference = features_of("Density and coverage", samples, reference)
    balls, holds = _counts(samples, reference, _radii(reference, k, block), block)
    return DensityCoverage(float(balls.mean() / k), float((holds > 0).mean()))


def realism(
    samples: Float[np.ndarray, "N D"], reference: Float[np.ndarray, "M D"], k: int = 3, block: int = BLOCK
) -> Float[np.ndarray, " N"]:
    """Returns `[N]` realism scores (Kynkäänniemi et al. 2019, Eq. 3), by which samples are sorted.

    The score is the largest ratio, over the reference's balls, of a ball's radius to the sample's distance from its
    centre; the highest are the most realistic. At least 1 means inside a ball; infinity means a copy of a centre.
    Balls larger than the median are left out, as in the paper: they reach far beyond the data.

    Raises:
      UserError: for unequal widths, values that are not finite, or k not below M.
    """
    samples, reference = features_of("Realism", samples, reference)
    radii = _radii(reference, k, block)
    kept = radii <= np.median(radii)
    centres, radii = reference[kept], radii[kept]
    found = np.zeros(len(samples))
    for rows, columns, squares in tiles(samples, centres, block):
        with np.errstate(divide="ignore", over="ignore"):
            ratios = np.where(squares > 0, radii[columns] / np.where(squares > 0, squares, 1.0), np.inf)
        found[rows] = np.maximum(found[rows], ratios.max(axis=1))
    return np.sqrt(found)


def _radii(features: np.ndarray, k: int, block: int) -> np.ndarray:
    """Returns `[N]` squared distances of each row to its k-th nearest other row."""
    return nearest(features, features, k, others=True, block=block)[1][:, -1]


def _counts(points: np.ndarray, centres: np.ndarray, radii: np.ndarray, block: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns how many balls hold each point `[N]`, and how many points each ball holds `[M]`; radii are squared."""
    balls, holds = np.zeros(len(points), np.int64), np.zeros(len(centres), np.int64)
    for rows, columns, squares in tiles(points, centres, block):
        reach = radii[columns]
        inside = squares <= reach
        squares -= reach
        i, j = np.nonzero(np.abs(squares, out=squares) <= BORDER * reach)
        inside[i, j] = exactly(points, centres, i + rows.start, j + columns.start) <= reach[j]
        balls[rows] += inside.sum(axis=1)
        holds[columns] += inside.sum(axis=0)
    return balls, holds
