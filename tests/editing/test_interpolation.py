"""Spherical interpolation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from exact import SMOOTH, modes

from jaxgen.editing.interpolation import interpolate, interpolation_grid, slerp_noise
from jaxgen.editing.inversion import reconstruct
from jaxgen.editing.model import DiffusionModel


@pytest.fixture(name="pair")
def _pair():
    return jax.random.normal(jax.random.key(0), (2, 4, 6, 6, 1))


def norms(x):
    return np.linalg.norm(np.asarray(x).reshape(len(x), -1), axis=1)


def test_the_ends_are_the_ends(pair):
    a, b = pair
    np.testing.assert_allclose(slerp_noise(a, b, 0.0), a, atol=1e-6)
    np.testing.assert_allclose(slerp_noise(a, b, 1.0), b, atol=1e-6)


def test_vectors_of_equal_length_keep_it_and_the_line_does_not(pair):
    a, b = pair
    b = b * (norms(a) / norms(b))[:, None, None, None]
    for share in (0.1, 0.5, 0.9):
        np.testing.assert_allclose(norms(slerp_noise(a, b, share)), norms(a), rtol=1e-5)
    assert (norms((a + b) / 2) < 0.85 * norms(a)).all()


def test_the_angle_grows_evenly(pair):
    a, b = (x / norms(x)[:, None, None, None] for x in pair)
    whole = np.arccos((a * b).reshape(4, -1).sum(1))
    part = np.arccos((a * slerp_noise(a, b, 0.3)).reshape(4, -1).sum(1))
    np.testing.assert_allclose(part, 0.3 * whole, rtol=1e-4)


def test_one_share_for_each_example(pair):
    a, b = pair
    shares = jnp.asarray([0.0, 0.2, 0.7, 1.0])
    mixed = slerp_noise(a, b, shares)
    for i, share in enumerate(shares):
        np.testing.assert_allclose(mixed[i], slerp_noise(a[i : i + 1], b[i : i + 1], share)[0], atol=1e-6)


@pytest.mark.parametrize("other", [lambda a: a, lambda a: a * (1 + 1e-7), lambda a: 2 * a, lambda a: -a])
def test_where_no_arc_is_singled_out_the_line_is_taken(pair, other):
    a = pair[0]
    b = other(a)
    np.testing.assert_allclose(slerp_noise(a, b, 0.25), 0.75 * a + 0.25 * b, atol=1e-5)


def test_a_vector_of_no_length_is_an_end_like_others(pair):
    a = pair[0]
    for share in (0.0, 0.5, 1.0):
        mixed = slerp_noise(a, jnp.zeros_like(a), share)
        assert np.isfinite(mixed).all() and (norms(mixed) <= norms(a) + 1e-5).all()


def test_nearly_parallel_vectors_are_joined_without_a_jump(pair):
    """On both sides of the guard the result is the line's, up to the square of the angle."""
    a, direction = pair
    for angle in (1e-5, 9e-4, 1.1e-3, 1e-2):
        b = a + angle * direction
        np.testing.assert_allclose(slerp_noise(a, b, 0.5), (a + b) / 2, atol=1e-4)


def test_gradients_are_finite_at_the_guard(pair):
    a = pair[0]
    slope = jax.grad(lambda b: jnp.square(slerp_noise(a, b, 0.5)).sum())(a)
    assert np.isfinite(slope).all()


def test_images_between_latents(pair):
    latents = pair[:, :, 0, 0, :]

    def decode(x):
        return reconstruct(DiffusionModel(modes(SMOOTH), SMOOTH), x, steps=20)

    frames = interpolate(decode, *latents, count=5)
    assert frames.shape == (5, 4, 1)
    np.testing.assert_allclose(frames[0], decode(latents[0]), atol=1e-5)
    np.testing.assert_allclose(frames[-1], decode(latents[1]), atol=1e-5)


def test_a_grid_has_its_corners_at_its_corners(pair):
    corners = pair[0]
    grid = interpolation_grid(lambda x: 2 * x, corners, rows=3, columns=5)
    assert grid.shape == (3, 5, 6, 6, 1)
    for image, (row, column) in zip(corners, [(0, 0), (0, -1), (-1, 0), (-1, -1)], strict=True):
        np.testing.assert_allclose(grid[row, column], 2 * image, atol=1e-5)
    np.testing.assert_allclose(grid[0, 2], 2 * slerp_noise(corners[:1], corners[1:2], 0.5)[0], atol=1e-5)
