"""Computes Euclidean distances between all rows of two sets, in float64 and in tiles, so that memory stays bounded."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float, Int

from jaxgen.errors import UserError

BLOCK = 2048  # a tile of 2048 x 2048 distances takes 32 MiB
# Below this share of the rows' squared lengths, |a|**2 + |b|**2 - 2 a b has lost too many digits.
CANCELLED = 1e-6
CHUNK = 1 << 22  # numbers in a list of differences


def tiles(
    a: Float[np.ndarray, "N D"], b: Float[np.ndarray, "M D"], block: int = BLOCK
) -> Iterator[tuple[slice, slice, Float[np.ndarray, "n m"]]]:
    """Yields squared distances of `[N, D]` and `[M, D]`, tile by tile: (rows of a, rows of b, `[n, m]`).

    Most come from a matrix product of centred rows, with a relative error of about 1e-10; those of near copies are
    sums of squared differences, so that copies are at exactly 0.
    """
    if block < 1:
        raise UserError(f"Distances are taken in blocks of at least one row, not {block}.")
    centre = b.mean(axis=0, dtype=np.float64)
    for i in range(0, len(a), block):
        rows = slice(i, min(i + block, len(a)))
        left = a[rows] - centre
        left_squares = np.einsum("nd,nd->n", left, left)[:, None]
        for j in range(0, len(b), block):
            columns = slice(j, min(j + block, len(b)))
            right = b[columns] - centre
            lengths = left_squares + np.einsum("nd,nd->n", right, right)
            squares = left @ right.T
            squares *= -2
            squares += lengths
            lengths *= CANCELLED
            at = np.nonzero(squares <= lengths)
            squares[at] = exactly(a, b, at[0] + i, at[1] + j)
            yield rows, columns, squares


def exactly(
    a: Float[np.ndarray, "N D"], b: Float[np.ndarray, "M D"], i: Int[np.ndarray, " P"], j: Int[np.ndarray, " P"]
) -> Float[np.ndarray, " P"]:
    """Returns `[P]` squared distances of rows i of a and j of b; a pair's bits do not depend on other pairs."""
    found = np.empty(len(i))
    step = max(CHUNK // a.shape[1], 1)
    for start in range(0, len(i), step):
        part = slice(start, start + step)
        found[part] = np.square(a[i[part]].astype(np.float64) - b[j[part]]).sum(axis=1)
    return found


def nearest(
    a: Float[np.ndarray, "N D"], b: Float[np.ndarray, "M D"], k: int = 1, others: bool = False, block: int = BLOCK
) -> tuple[Int[np.ndarray, "N k"], Float[np.ndarray, "N k"]]:
    """Returns the k nearest rows of b for each row of a, nearest first: indices and squared distances `[N, k]`.

    Args:
      a, b: features `[N, D]`, `[M, D]`.
      others: whether a and b are the same set, in which a row is not its own neighbour.

    Raises:
      UserError: for fewer than k candidates.
    """
    if not 1 <= k <= len(b) - others:
        raise UserError(f"There is no neighbour number {k} among {len(b)} examples; use a smaller k or more examples.")
    indices, found = np.zeros((len(a), k), np.int64), np.full((len(a), k), np.inf)
    for rows, columns, squares in tiles(a, b, block):
        if others:
            own = np.arange(max(rows.start, columns.start), min(rows.stop, columns.stop))
            squares[own - rows.start, own - columns.start] = np.inf
        if squares.shape[1] > k:
            best = np.argpartition(squares, k - 1, axis=1)[:, :k]
        else:
            best = np.broadcast_to(np.arange(squares.shape[1]), squares.shape)
        both = np.concatenate([found[rows], np.take_along_axis(squares, best, axis=1)], axis=1)
        which = np.concatenate([indices[rows], best + columns.start], axis=1)
        kept = np.argpartition(both, k - 1, axis=1)[:, :k]
        found[rows], indices[rows] = np.take_along_axis(both, kept, 1), np.take_along_axis(which, kept, 1)
    found = exactly(a, b, np.repeat(np.arange(len(a)), k), indices.ravel()).reshape(len(a), k)
    order = np.argsort(found, axis=1, kind="stable")
    return np.take_along_axis(indices, order, axis=1), np.take_along_axis(found, order, axis=1)


def features_of(what: str, *sets: np.ndarray) -> tuple[np.ndarray, ...]:
    """Returns the sets as floating arrays, after checking them.

    Raises:
      UserError: unless each is `[N, D]`, of the same D, not empty and finite. `what` begins the sentence.
    """
    sets = tuple(x if np.issubdtype(x.dtype, np.floating) else x.astype(np.float64) for x in map(np.asarray, sets))
    if any(x.ndim != 2 or not x.size or x.shape[1] != sets[0].shape[1] for x in sets):
        shapes = " and ".join(str(x.shape) for x in sets)
        raise UserError(f"{what} takes features [N, D] of equal D, at least one row each, not {shapes}.")
    if not all(np.isfinite(x).all() for x in sets):
        raise UserError(f"{what} needs finite features; some are NaN or infinite.")
    return sets
