"""The Fréchet distance between Gaussians fitted to two sets of features."""

from __future__ import annotations

import numpy as np
import scipy.linalg

from jaxgen.errors import UserError


def frechet_distance(a: np.ndarray, b: np.ndarray) -> float:
    """|mu_a - mu_b|**2 + Tr(S_a + S_b - 2 (S_a S_b)**(1/2)) (Dowson & Landau 1982; Heusel et al. 2017, Eq. 6).

    Args:
      a, b: features `[N, D]`, `[M, D]`; covariances are unbiased (n - 1), all in float64.

    Raises:
      UserError: for fewer than two rows, unequal widths or values that are not finite.
    """
    a, b = (np.asarray(x, np.float64) for x in (a, b))
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1]:
        raise UserError(f"The Fréchet distance compares features [N, D] of equal D, not {a.shape} and {b.shape}.")
    if len(a) < 2 or len(b) < 2:
        raise UserError("The Fréchet distance needs at least two examples on each side.")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise UserError("The Fréchet distance needs finite features; some are NaN or infinite.")
    gap = a.mean(axis=0) - b.mean(axis=0)
    s_a, s_b = np.atleast_2d(np.cov(a.T)), np.atleast_2d(np.cov(b.T))
    # Tr (S_a S_b)**(1/2) = sum of the singular values of S_a**(1/2) S_b**(1/2)
    cross = scipy.linalg.svdvals(_root(s_a) @ _root(s_b)).sum()
    return float(max(gap @ gap + np.trace(s_a) + np.trace(s_b) - 2 * cross, 0.0))


def _root(matrix: np.ndarray) -> np.ndarray:
    """The symmetric square root of a positive semi-definite matrix."""
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T
