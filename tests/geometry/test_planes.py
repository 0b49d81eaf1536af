"""Planes of features: each reads its own two coordinates, bilinearly, and zeros lie outside."""

from __future__ import annotations

import jax
import numpy as np

from jaxgen.geometry import planes

read, sample = jax.jit(planes.bilinear), jax.jit(planes.sample)
RNG = np.random.default_rng(0)


def test_a_picture_that_is_linear_is_read_exactly():
    height, width = 5, 8
    x, y = np.meshgrid((np.arange(width) + 0.5) / width * 2 - 1, (np.arange(height) + 0.5) / height * 2 - 1)
    picture = np.stack([x, y, 1 + 2 * x - 3 * y], -1)
    places = RNG.uniform(-0.8, 0.8, (100, 2))  # between the pixels' centres
    u, v = places.T
    np.testing.assert_allclose(read(picture, places), np.stack([u, v, 1 + 2 * u - 3 * v], -1), atol=1e-5)


def test_zeros_lie_outside_and_nothing_is_read_twice():
    places = np.array([[0.0, 0.0], [1.0, 0.0], [-1.0, 1.0], [1.25, 0.0], [1.3, 0.0], [0.0, -7.0], [1e9, -1e9]])
    found = read(np.ones((4, 4, 1)), places)[:, 0]
    np.testing.assert_allclose(found, [1, 0.5, 0.25, 0, 0, 0, 0], atol=1e-6)


def test_each_plane_reads_its_own_coordinates():
    points = RNG.uniform(-0.9, 0.9, (2, 30, 3))
    line = (np.arange(32) + 0.5) / 16 - 1
    column, row = np.meshgrid(line, line)
    for number, axes in enumerate(((0, 1), (0, 2), (1, 2))):
        stack = np.zeros((2, 3, 32, 32, 2))
        stack[:, number] = np.stack([column, row], -1)
        np.testing.assert_allclose(3 * sample(stack, points), points[..., axes], atol=1e-5)
