"""The Fréchet distance between Gaussians fitted to two sets of features, from the features or from their moments."""

from __future__ import annotations

import dataclasses

import numpy as np
import scipy.linalg

from jaxgen.errors import UserError

BLOCK = 8192  # rows that are cast to float64 at a time
WELL_CONDITIONED = 1e-6  # least squared diagonal entry of a Cholesky factor, over the largest, that needs no pivots


@dataclasses.dataclass(frozen=True)
class Moments:
    """Count, mean and scatter of features, in float64; sets may come in batches and be merged in any order.

    Attributes:
      count: how many rows. mean: `[D]`. scatter: `[D, D]`, the sum of outer products of the centred rows.
    """

    count: int
    mean: np.ndarray
    scatter: np.ndarray

    @staticmethod
    def of(features: np.ndarray) -> Moments:
        """Of features `[N, D]`, N at least 1.

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

    def add(self, features: np.ndarray) -> Moments:
        """With `[N, D]` more rows. A large batch costs little more than a small one. Raises as `of` and `merge`."""
        return self.merge(Moments.of(features))

    def merge(self, other: Moments) -> Moments:
        """Of both sets together (Chan, Golub & LeVeque 1979, the pairwise update).

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
    def covariance(self) -> np.ndarray:
        """`[D, D]`, unbiased (n - 1). Raises a UserError for fewer than two rows."""
        if self.count < 2:
            raise UserError("A covariance needs at least two examples.")
        return self.scatter / (self.count - 1)


def frechet_distance(a: np.ndarray, b: np.ndarray) -> float:
    """|mu_a - mu_b|**2 + Tr(S_a + S_b - 2 (S_a S_b)**(1/2)) (Dowson & Landau 1982; Heusel et al. 2017, Eq. 6).

    It is biased upwards, the more the fewer examples there are: compare numbers of equal n only.

    Args:
      a, b: features `[N, D]`, `[M, D]`; covariances are unbiased (n - 1), all in float64. Fewer rows than features,
        and features that never vary, are allowed.

    Raises:
      UserError: for fewer than two rows, unequal widths or values that are not finite.
    """
    a, b = np.asarray(a), np.asarray(b)
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1]:
        raise UserError(f"The Fréchet distance compares features [N, D] of equal D, not {a.shape} and {b.shape}.")
    if len(a) < 2 or len(b) < 2:
        raise UserError("The Fréchet distance needs at least two examples on each side.")
    return frechet_from_moments(Moments.of(a), Moments.of(b))


def frechet_from_moments(a: Moments, b: Moments) -> float:
    """The Fréchet distance of two sets of which only the moments are kept; see `frechet_distance`.

    Raises:
      UserError: for fewer than two rows or unequal widths.
    """
    if a.mean.shape != b.mean.shape:
        raise UserError(f"The Fréchet distance needs equally many features, not {len(a.mean)} and {len(b.mean)}.")
    if _rank(b) < _rank(a):
        a, b = b, a
    gap = a.mean - b.mean
    s_a, s_b = a.covariance, b.covariance
    spread = np.trace(s_a) + np.trace(s_b) - 2 * _trace_of_root(s_a, s_b)
    return float(gap @ gap + max(spread, 0.0))


def _rank(moments: Moments) -> int:
    """At most this is the covariance's rank."""
    return min(moments.count - 1, np.count_nonzero(np.diagonal(moments.scatter)))


def _trace_of_root(s_a: np.ndarray, s_b: np.ndarray) -> float:
    """Tr (S_a S_b)**(1/2): the sum of the roots of the eigenvalues of U S_b U^T, where S_a = U^T U.

    U has as many rows as S_a has rank, so that null directions of S_a, a few thousand where there are fewer examples
    than features, leave nothing whose rounding could be rooted.
    """
    upper, order, rank = _factor(s_a)
    # below the diagonal `upper` holds what it held; no routine here reads it
    inner, _ = scipy.linalg.lapack.dsygst(s_b[np.ix_(order, order)], upper, itype=2)  # U S_b U^T
    # The order grades the matrix from large to small; read as a lower triangle, its small eigenvalues keep digits.
    values = np.linalg.eigvalsh(inner[:rank, :rank].T)
    return float(np.sqrt(np.maximum(values, 0.0)).sum())


def _factor(s: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """U with s[order][:, order] = U^T U, the order, and the rank; rows of U beyond it are 0.

    Variances in falling order are pivots enough where no row of U comes near 0, and three times as fast as searching
    for the pivots on the way.
    """
    order = np.argsort(-np.diagonal(s), kind="stable")
    upper, failed = scipy.linalg.lapack.dpotrf(s[np.ix_(order, order)], clean=False, overwrite_a=True)
    rows = np.square(np.diagonal(upper))
    if failed == 0 and rows.min() > WELL_CONDITIONED * rows.max():
        return upper, order, len(s)
    upper, pivots, rank, _ = scipy.linalg.lapack.dpstrf(s)
    upper[rank:] = 0
    return upper, pivots - 1, rank


def _moments(block: np.ndarray) -> Moments:
    block = block.astype(np.float64)
    if not np.isfinite(block).all():
        raise UserError("The Fréchet distance needs finite features; some are NaN or infinite.")
    mean = block.mean(axis=0)
    block -= mean
    return Moments(len(block), mean, block.T @ block)
