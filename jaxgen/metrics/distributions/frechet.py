"""Computes the Fréchet distance between Gaussians fitted to two sets of features, or from their moments."""

from __future__ import annotations

import numpy as np
import scipy.linalg
from jaxtyping import Float

from jaxgen.errors import UserError
from jaxgen.metrics.base import SetMetric, Value
from jaxgen.metrics.moments import Moments
from jaxgen.metrics.networks.base import FeatureNetwork
from jaxgen.metrics.summary import Summary

# A Cholesky factor U without pivoting is accurate enough where min(diag(U)^2) / max(diag(U)^2) is above this.
WELL_CONDITIONED = 1e-6


class Frechet(SetMetric):
    """The Fréchet distance is taken in any network's features.

    In the published Inception's it is the FID, and is named so.
    """

    needs = frozenset({"moments"})
    note = "It falls as n grows: compare equal n only."

    def value(self, samples: Summary, reference: Summary) -> Value:
        return Value(frechet_from_moments(samples.moments, reference.moments))

    def number(self, network: FeatureNetwork) -> str:
        return "fid" if network.published else f"frechet_{network.name}"


class FID(Frechet):
    """FID is the Fréchet distance in the features of the published Inception (Heusel et al. 2017), and in no others."""

    def check(self, network: FeatureNetwork) -> None:
        only_published(self.name, "frechet", network)


def only_published(name: str, general: str, network: FeatureNetwork) -> None:
    """Raises a UserError unless a network's features are those that `name` means.

    Args:
      general: the metric's name in other features.
    """
    if not network.published:
        raise UserError(
            f"{name!r} means the features of the published Inception; in those of the network {network.name!r} the "
            f"number is {general!r}."
        )


def frechet_distance(a: Float[np.ndarray, "N D"], b: Float[np.ndarray, "M D"]) -> float:
    """Returns |mu_a - mu_b|**2 + Tr(S_a + S_b - 2 (S_a S_b)**(1/2)) (Dowson & Landau 1982; Heusel et al. 2017, Eq. 6).

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
    """Returns the Fréchet distance of two sets of which only the moments are kept; see `frechet_distance`.

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
    return min(moments.count - 1, int(np.count_nonzero(np.diagonal(moments.scatter))))


def _trace_of_root(s_a: np.ndarray, s_b: np.ndarray) -> float:
    """Returns Tr (S_a S_b)**(1/2): the sum of the roots of the eigenvalues of U S_b U^T, where S_a = U^T U.

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
