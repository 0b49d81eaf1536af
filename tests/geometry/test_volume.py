"""Volume rendering: its weights, closed forms, gradients against finite differences, and images on their own."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.geometry import cameras, volume

CAMERA = cameras.orbit(2)
RED = np.array([1.0, -1.0, -1.0], np.float32)


def soft_ball(radius, hardness, density=40.0):
    """The field of a red ball with a soft border."""

    def field(points):
        distance = jnp.sqrt((points**2).sum(-1) + 1e-9) - radius
        return density * jax.nn.sigmoid(-hardness * distance), jnp.broadcast_to(RED, points.shape)

    return field


def test_weights_are_shares_of_the_light():
    rng = np.random.default_rng(0)
    density, lengths = 30 * rng.random((50, 20), np.float32) ** 4, rng.random((50, 20), np.float32)
    density[0], lengths[0] = [0, 1e6, *[5] * 18], 1  # a wall
    weights = np.asarray(jax.jit(volume.composite)(density, lengths))
    assert weights.min() >= 0 and weights.sum(-1).max() <= 1 + 1e-6
    np.testing.assert_allclose(1 - weights.sum(-1), np.exp(-(density * lengths).sum(-1)), atol=1e-5)
    np.testing.assert_allclose(weights[0], [0, 1, *[0] * 18], atol=1e-6)


def test_an_even_fog_has_its_closed_form():
    """Light is left over as exp(-density x the way), and the way is that between the first and the last sample."""

    @jax.jit
    def seen_of(camera):
        origin, directions = cameras.rays(camera, 9, 9)
        fog = volume.render(lambda p: (jnp.full(p.shape[:-1], 0.7), jnp.broadcast_to(RED, p.shape)), camera, (9, 9), 64)
        return fog, *volume.ball(origin[:, None, None], directions)

    seen, near, far = jax.tree.map(np.asarray, seen_of(CAMERA))
    origin, directions = cameras.rays(CAMERA, 9, 9)
    way = (far - near) * 63 / 64
    np.testing.assert_allclose(seen["mask"][..., 0], 1 - np.exp(-0.7 * way), atol=1e-5)
    np.testing.assert_allclose(seen["image"], seen["mask"] * RED + (1 - seen["mask"]), atol=1e-5)
    assert float(seen["mask"][0, 0, 0, 0]) == 0 and float(seen["image"][0, 0, 0, 0]) == 1  # a corner misses the ball
    points = origin[:, None, None] + near[..., None] * directions
    np.testing.assert_allclose(np.linalg.norm(points[0, 4, 2:7], axis=-1), 1, atol=1e-5)


def test_further_samples_find_a_spheres_depth():
    field, counts = soft_ball(0.6, 300.0, density=400.0), (0, 48)
    both = jax.jit(lambda camera: [volume.render(field, camera, (17, 17), 24, more) for more in counts])
    seen = jax.tree.map(np.asarray, dict(zip(counts, both(CAMERA), strict=True)))
    origin, directions = cameras.rays(CAMERA, 17, 17)
    along = -(origin[:, None, None] * directions).sum(-1)
    inside = 0.36 - ((origin**2).sum(-1)[:, None, None] - along**2)
    core = inside > 0.05
    wanted = (along - np.sqrt(inside.clip(1e-9)))[core]
    errors = {more: np.abs(found["depth"][..., 0][core] - wanted).max() for more, found in seen.items()}
    assert errors[48] < 0.02 < errors[0] < 0.09
    assert seen[48]["mask"][..., 0][core].min() > 0.99
    assert seen[48]["mask"][..., 0][inside < -0.06].max() < 0.01


def test_further_samples_lie_where_the_weights_are():
    depths = np.linspace(0, 1, 11, dtype=np.float32)[None, None]
    weights = np.float32([[[0, 0, 0, 0, 0, 0, 1, 0, 0, 0]]])  # the piece from .6 to .7
    drawn = jax.jit(volume.importance, static_argnums=2)
    found = np.asarray(drawn(weights, depths, 400, jax.random.split(jax.random.key(0), 1)))[0, 0]
    shares = np.histogram(found, np.linspace(0, 1, 11))[0] / 400
    expected = np.full(10, volume.FLOOR)
    expected[[5, 6, 7]] += (0.5, 1, 0.5)  # smoothed
    np.testing.assert_allclose(shares, expected / expected.sum(), atol=0.006)
    assert found.min() >= 0 and found.max() <= 1 and (np.diff(found) > 0).all()


def test_gradients_are_those_of_finite_differences():
    with jax.enable_x64(True):
        camera = jnp.asarray(cameras.look_at_origin(np.array([0.4]), np.array([0.3])))

        @jax.jit
        @jax.value_and_grad
        def scene(numbers):
            seen = volume.render(soft_ball(*numbers), camera, (5, 5), 12)
            numbered = (values * jnp.cos(jnp.arange(values.size)).reshape(values.shape) for values in seen.values())
            return sum(values.sum() for values in numbered)

        here, step = np.array([0.6, 9.0, 8.0]), 1e-5
        gradient = np.asarray(scene(here)[1])
        for i, move in enumerate(step * np.eye(3)):
            differences = (scene(here + move)[0] - scene(here - move)[0]) / (2 * step)
            np.testing.assert_allclose(gradient[i], differences, rtol=1e-5, err_msg=f"number {i}")


def test_an_image_depends_on_its_own_key_and_camera_alone():
    render = jax.jit(functools.partial(volume.render, soft_ball(0.6, 20.0), size=(6, 6), samples=8, more=4))
    camera, keys = cameras.orbit(3), jax.random.split(jax.random.key(5), 3)
    seen = jax.tree.map(np.asarray, render(camera=camera, keys=keys))
    other = jax.tree.map(np.asarray, render(camera=camera[[2, 1, 0]], keys=keys[np.array([0, 1, 0])]))
    for name, values in seen.items():
        np.testing.assert_allclose(values[1], other[name][1], atol=1e-5)
        assert np.abs(values[2] - other[name][0]).max() > 1e-3  # the same camera with another key
