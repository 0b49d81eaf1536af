"""Walks through latent space: where they lead, and what they leave alone."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from scipy.stats import norm

from jaxgen.errors import UserError
from jaxgen.variational.latents import active, line, plane, traverse


def test_a_traversal_moves_one_latent_of_each_row_and_no_other():
    base = jax.random.normal(jax.random.key(0), (3, 4))
    walks = np.asarray(traverse(base, np.array([2, 0, 2]), steps=5, reach=2.0))
    assert walks.shape == (3, 5, 4)
    for row, axis in enumerate((2, 0, 2)):
        np.testing.assert_allclose(walks[row, :, axis], [-2, -1, 0, 1, 2])
        others = [i for i in range(4) if i != axis]
        np.testing.assert_array_equal(walks[row][:, others], np.tile(base[row, others], (5, 1)))


def test_a_line_has_both_ends_and_even_steps():
    ends = np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32)
    way = np.asarray(line(*ends, steps=6))
    np.testing.assert_allclose(way[:, [0, -1]], ends.transpose(1, 0, 2), atol=1e-6)
    np.testing.assert_allclose(np.diff(way, axis=1), np.tile((ends[1] - ends[0])[:, None] / 5, (1, 5, 1)), atol=1e-5)


def test_cells_of_the_plane_hold_equal_shares_of_the_prior():
    cells = np.asarray(plane(9, tail=0.1))
    assert cells.shape == (9, 9, 2)
    across, up = norm.cdf(cells[0, :, 0]), norm.cdf(cells[::-1, 0, 1])
    np.testing.assert_allclose(across, np.linspace(0.1, 0.9, 9), atol=1e-5)
    np.testing.assert_allclose(up, across, atol=1e-5)  # upwards: the first row is the highest


def test_active_latents_are_those_whose_mean_follows_the_image():
    means = np.random.default_rng(0).normal(size=(4000, 4)) * [1.0, 0.2, 0.03, 0.0] + [0, 0, 0, 5.0]
    assert active(means) == 2  # a constant is no use, however far from 0
    assert active(means, least=1e-5) == 3
    with pytest.raises(UserError, match="at least two images"):
        active(means[:1])
