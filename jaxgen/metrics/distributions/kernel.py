"""The kernel distance (KID) is an unbiased estimate of how far apart two sets of features are."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from jaxgen.errors import UserError
from jaxgen.metrics.base import SetMetric, Value
from jaxgen.metrics.summary import Summary

SUBSETS = 100
LARGEST = 1000  # examples in a subset


class KID(SetMetric):
    """The kernel distance is taken in any network's features; see `kid`."""

    note = "Unbiased in n; the standard deviation is that of one subset."

    def value(self, samples: Summary, reference: Summary) -> Value:
        return Value(*kid(samples.kept_features, reference.kept_features))


class KernelDistance(NamedTuple):
    """Holds a kernel distance and its deviation between subsets.

    Attributes:
      mean: the mean over the subsets; it is near 0, and of either sign, for equal distributions.
      std: the standard deviation of one subset's estimate.
    """

    mean: float
    std: float


def kid(
    a: Float[np.ndarray, "N D"],
    b: Float[np.ndarray, "M D"],
    subsets: int = SUBSETS,
    subset_size: int | None = None,
    seed: int = 0,
) -> KernelDistance:
    """Returns the kernel inception distance of Binkowski et al. (2018), Section 4, on features of any network.

    The mean of `mmd2` over random subsets, each drawn without replacement. Unlike the Fréchet distance it has no
    bias in the number of examples.

    Args:
      a, b: features `[N, D]`, `[M, D]`; all sums are float64.
      subset_size: examples of each side in a subset; by default 1000, or half of the smaller side where that is
        less, so that the subsets differ and `std` means something.

    Raises:
      UserError: for sets too small, unequal widths or values that are not finite.
    """
    a, b = _features(a, b)
    smaller = min(len(a), len(b))
    size = min(LARGEST, max(2, smaller // 2)) if subset_size is None else subset_size
    if not 2 <= size <= smaller:
        raise UserError(
            f"The kernel distance draws subsets of {size} from {len(a)} and {len(b)} examples; "
            "give at least 2 on each side, and subset_size at most the smaller number."
        )
    if subsets < 1:
        raise UserError(f"The kernel distance needs at least one subset, not {subsets}.")
    chance = np.random.default_rng(seed)
    values = [
        _mmd2(a[chance.choice(len(a), size, replace=False)], b[chance.choice(len(b), size, replace=False)])
        for _ in range(subsets)
    ]
    return KernelDistance(float(np.mean(values)), float(np.std(values)))


def mmd2(a: Float[np.ndarray, "N D"], b: Float[np.ndarray, "M D"]) -> float:
    """Returns the unbiased squared maximum mean discrepancy (Gretton et al. 2012, Eq. 3) of `[N, D]` and `[M, D]`.

    The kernel is (x y / D + 1)**3 (Binkowski et al. 2018, Eq. 4). Raises as `kid` does.
    """
    a, b = _features(a, b)
    if min(len(a), len(b)) < 2:
        raise UserError("The kernel distance needs at least two examples on each side.")
    return float(_mmd2(a, b))


def _mmd2(a: np.ndarray, b: np.ndarray) -> float:
    return _mean_of_pairs(_kernel(a, a)) + _mean_of_pairs(_kernel(b, b)) - 2 * _kernel(a, b).mean()


def _kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    inner = a @ b.T / a.shape[1] + 1.0
    return inner * inner * inner  # a power of 3 is ten times as slow


def _mean_of_pairs(matrix: np.ndarray) -> float:
    """Returns the mean over pairs of different examples: the diagonal would bias it."""
    count = len(matrix)
    return (matrix.sum() - np.trace(matrix)) / (count * (count - 1))


def _features(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    a, b = (np.asarray(x, np.float64) for x in (a, b))
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1]:
        raise UserError(f"The kernel distance compares features [N, D] of equal D, not {a.shape} and {b.shape}.")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise UserError("The kernel distance needs finite features; some are NaN or infinite.")
    return a, b
