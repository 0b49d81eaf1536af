"""Distances in tiles against SciPy's, near copies, and neighbours."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from jaxgen.errors import UserError
from jaxgen.metrics.pairwise import nearest, tiles

RNG = np.random.default_rng(0)
A, B = RNG.normal(size=(23, 7)), RNG.normal(0.3, 1, size=(31, 7))


def _whole(a, b, block):
    found = np.full((len(a), len(b)), np.nan)
    for rows, columns, squares in tiles(a, b, block):
        found[rows, columns] = squares
    return np.sqrt(found)


@pytest.mark.parametrize("block", [1, 5, 8, 100])
def test_tiles_are_the_distances_whatever_their_size(block):
    np.testing.assert_allclose(_whole(A, B, block), cdist(A, B), rtol=1e-12)


def test_near_copies_far_from_the_origin_keep_their_digits():
    """Where the matrix product cancels: points 1e-5 apart at 1e3 from the mean."""
    a = np.concatenate([A + 1e3, A - 1e3])
    b = a + 1e-5 * RNG.normal(size=a.shape)
    np.testing.assert_allclose(np.diagonal(_whole(a, b, 9)), np.linalg.norm(a - b, axis=1), rtol=1e-12)
    assert (np.diagonal(_whole(a, a, 9)) == 0).all()


@pytest.mark.parametrize("k,block", [(1, 4), (3, 4), (6, 4), (5, 64)])
def test_neighbours_against_sorting_all(k, block):
    distances = cdist(A, B)
    indices, squares = nearest(A, B, k, block=block)
    np.testing.assert_array_equal(indices, np.argsort(distances, axis=1)[:, :k])
    np.testing.assert_allclose(np.sqrt(squares), np.sort(distances, axis=1)[:, :k], rtol=1e-12)


def test_a_row_is_not_its_own_neighbour_but_a_copy_is():
    indices, squares = nearest(A, A, 2, others=True, block=5)
    assert (indices != np.arange(len(A))[:, None]).all()
    np.testing.assert_allclose(np.sqrt(squares), np.sort(cdist(A, A), axis=1)[:, 1:3], rtol=1e-12)
    twice = np.concatenate([A, A])
    indices, squares = nearest(twice, twice, 1, others=True, block=7)
    np.testing.assert_array_equal(indices[:, 0], np.roll(np.arange(46), 23))
    assert (squares == 0).all()


def test_too_few_candidates():
    for k, others in ((0, False), (24, False), (23, True)):
        with pytest.raises(UserError, match="neighbour"):
            nearest(A, A, k, others=others)
    with pytest.raises(UserError, match="block"):
        next(tiles(A, B, 0))
