"""Cameras: rays go through the pixels that their points appear in, and both kinds of arrays give the same."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.geometry import cameras


def test_a_point_on_a_ray_appears_at_the_rays_pixel():
    camera = cameras.look_at_origin(np.array([0.3, 4.0]), np.array([0.5, -0.2]), aspect=8 / 5)
    origin, directions = cameras.rays(camera, 5, 8)
    assert directions.shape == (2, 5, 8, 3)
    np.testing.assert_allclose(np.linalg.norm(directions, axis=-1), 1)
    points = origin[:, None, None] + np.linspace(1, 4, 40).reshape(5, 8, 1) * directions
    places, ahead = cameras.project(camera, points.reshape(2, 40, 3))
    assert (ahead > 0).all()
    wanted = np.stack(np.meshgrid((np.arange(8) + 0.5) / 8, (np.arange(5) + 0.5) / 5), -1).reshape(40, 2)
    np.testing.assert_allclose(places, np.broadcast_to(wanted, places.shape), atol=1e-12)


def test_a_camera_looks_at_the_origin_with_z_upwards_and_sees_the_unit_ball():
    azimuth, elevation = np.array([0.0, 1.0, 3.5]), np.array([-0.4, 0.0, 1.2])
    camera = cameras.look_at_origin(azimuth, elevation)
    to_world = camera[:, :16].reshape(3, 4, 4)
    turn = to_world[:, :3, :3]
    np.testing.assert_allclose(turn @ turn.swapaxes(1, 2), np.stack([np.eye(3)] * 3), atol=1e-12)
    np.testing.assert_allclose(np.linalg.det(to_world), 1)
    np.testing.assert_allclose(np.linalg.norm(to_world[:, :3, 3], axis=-1), cameras.DISTANCE)
    np.testing.assert_allclose(to_world[:, 2, 3], cameras.DISTANCE * np.sin(elevation))
    np.testing.assert_allclose(cameras.project(camera, np.zeros((3, 1, 3)))[0], 0.5)
    above = cameras.project(camera, np.tile(np.array([[[0, 0, 0.1]]]), (3, 1, 1)))[0][:, 0]
    np.testing.assert_allclose(above[:, 0], 0.5)
    assert (above[:, 1] < 0.5).all()  # y of a picture points down
    ball = np.random.default_rng(0).normal(size=(1, 2000, 3))
    ball = (ball / np.linalg.norm(ball, axis=-1, keepdims=True)).repeat(3, 0)
    places = cameras.project(camera, ball)[0]
    assert places.min() > 0 and places.max() < 1 and places.max() > 0.98


def test_jax_under_jit_gives_what_numpy_gives():
    made = jax.jit(lambda a, e: cameras.rays(cameras.look_at_origin(a, e, aspect=1.5), 4, 6))
    azimuth, elevation = np.float32([0.3, 2.0]), np.float32([0.1, 0.6])
    for found, wanted in zip(
        made(jnp.asarray(azimuth), jnp.asarray(elevation)),
        cameras.rays(cameras.look_at_origin(azimuth, elevation, aspect=1.5), 4, 6), strict=True,
    ):  # fmt: skip
        np.testing.assert_allclose(found, wanted, atol=1e-6)
    turn = cameras.orbit(4)
    assert turn.dtype == np.float32
    np.testing.assert_allclose(turn[2, [3, 7]], -turn[0, [3, 7]], atol=1e-6)  # on the other side
    np.testing.assert_allclose(turn[:, 11], turn[0, 11])
