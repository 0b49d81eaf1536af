"""Computes count, mean and covariance of features, from batches that need not be in memory together."""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Float

from jaxgen.errors import UserError

BLOCK = 8192  # rows that are cast to float64 at a time
# Stands for a number of rows that nobody has told. One less is a power of two, so that scatter and covariance are exact
# multiples of each other.
UNKNOWN = 2**31 + 1


@dataclasses.dataclass(frozen=True)
class Moments:
    """Holds count, mean and scatter of features, in float64; sets may come in batches and be merged in any order.

    Attributes:
      count: how many rows.
      mean: `[D]`.
      scatter: `[D, D]`, the sum of outer products of the centred rows.
    """

    count: int
    mean: Float[np.ndarray, " D"]
    scatter: Float[np.ndarray, "D D"]

    @staticmethod
    def of(features: Float[np.ndarray, "N D"]) -> Moments:
        """Returns the moments of features `[N, D]`, N at least 1.

        Raises:
          UserError: for another shape, no rows, or values that are not finite.
        """
        features = np.asarray(features)
        if features.ndim != 2 or not features.size:
            raise UserError(f"Moments are those of features [N, D] with at least one row, not of {features.shape}.")
        moments = _moments(features[:BLOCK])
        for start in range(BLOCK, len(features), BLOCK):
            moments = moments.merge(_moments(features[start : start + BLOCK]))
        return moments

    @staticmethod
    def of_statistics(mean: Float[np.ndarray, " D"], covariance: Float[np.ndarray, "D D"]) -> Moments:
        """Returns moments of a mean and an unbiased covariance, float64, of a number of rows that is `UNKNOWN`."""
        return Moments(UNKNOWN, mean, covariance * (UNKNOWN - 1))

    def add(self, features: Float[np.ndarray, "N D"]) -> Moments:
        """Returns the moments with `[N, D]` more rows.

        A large batch costs little more than a small one. Raises as `of` and `merge`.
        """
        return self.merge(Moments.of(features))

    def merge(self, other: Moments) -> Moments:
        """Returns the moments of both sets together (Chan, Golub & LeVeque 1979, the pairwise update).

        Raises:
          UserError: for unequal widths.
        """
        if self.mean.shape != other.mean.shape:
            raise UserError(f"Moments of {len(self.mean)} and {len(other.mean)} features cannot be merged.")
        count = self.count + other.count
        gap = other.mean - self.mean
        scatter = self.scatter + other.scatter + np.outer(gap, gap * (self.count * other.count / count))
        return Moments(count, self.mean + gap * (other.count / count), scatter)

    @property
    def covariance(self) -> Float[np.ndarray, "D D"]:
        """Returns the covariance `[D, D]`, unbiased (n - 1). Raises a UserError for fewer than two rows."""
        if self.count < 2:
            raise UserError("A covariance needs at least two examples.")
        return self.scatter / (self.count - 1)


def _moments(block: np.ndarray) -> Moments:
    block = block.astype(np.float64)
    if not np.isfinite(block).all():
        raise UserError("The Fréchet distance needs finite features; some are NaN or infinite.")
    mean = block.mean(axis=0)
    block -= mean
    return Moments(len(block), mean, block.T @ block)
