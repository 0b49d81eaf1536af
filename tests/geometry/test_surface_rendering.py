"""Rendered surfaces: a sphere's depth is its closed form, gradients are finite differences, and the front is seen."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.geometry import cameras
from jaxgen.geometry.surface_rendering import render

CAMERA = cameras.orbit(1)
SIZE = (9, 9)
COLOUR = jnp.array([0.5, -0.25, 0.75])


def sphere(centre, radius):
    return lambda p: jnp.linalg.norm(p - centre, axis=-1) - radius


def plain(p):
    return jnp.broadcast_to(COLOUR, p.shape)


def seen(distance, colour=plain, **options):
    return render(distance, colour, jnp.asarray(CAMERA), SIZE, samples=options.pop("samples", 48), **options)


def closed_form(centre, radius):
    """Where rays meet a sphere, and whether they do."""
    origin, directions = cameras.rays(CAMERA, *SIZE)
    to_centre = origin[:, None, None] - np.asarray(centre, np.float32)
    along = (to_centre * directions).sum(-1)
    inside = along**2 - (to_centre**2).sum(-1) + radius**2
    return -along - np.sqrt(np.maximum(inside, 0)), inside > 0


def test_a_sphere_has_its_depth_its_outline_and_its_colour():
    centre, radius = np.float32([0.1, -0.2, 0.1]), 0.5
    found = jax.jit(lambda: seen(sphere(centre, radius), sharpness=300.0))()
    depth, met = closed_form(centre, radius)
    assert met.sum() > 5
    np.testing.assert_allclose(found["depth"][..., 0][met], depth[met], atol=2e-3)
    np.testing.assert_array_equal(found["mask"][..., 0] > 0.5, met)
    middle = found["mask"][..., 0] > 0.99
    np.testing.assert_allclose(found["image"][middle], np.broadcast_to(COLOUR, (middle.sum(), 3)), atol=0.02)
    np.testing.assert_allclose(found["image"][0, 0, 0], 1, atol=1e-3)  # white behind it


def test_the_front_of_two_surfaces_is_seen():
    at = cameras.look_at_origin(np.float32([0.0]), np.float32([0.1]))
    towards = at[0, :16].reshape(4, 4)[:3, 3]
    towards = np.float32(towards / np.linalg.norm(towards))
    front, back = sphere(0.5 * towards, 0.3), sphere(-0.5 * towards, 0.4)
    both = lambda p: jnp.minimum(front(p), back(p))  # noqa: E731
    colour = lambda p: jnp.where((front(p) < back(p))[..., None], 1.0, -1.0) * jnp.ones(3)  # noqa: E731
    found = jax.jit(lambda: render(both, colour, jnp.asarray(at), SIZE, 48, background=0.0))()
    middle = found["image"][0, 4, 4]
    assert (np.asarray(middle) > 0.9).all()
    np.testing.assert_allclose(found["depth"][0, 4, 4, 0], cameras.DISTANCE - 0.8, atol=2e-3)


def test_gradients_are_finite_differences():
    """Of colours and depths well within the outline, and of the mask everywhere, in place, size and colour.

    At the outline itself the depth of a sphere has no slope: it ends like a square root.
    """
    start = jnp.array([0.05, -0.1, 0.02, 0.6, 0.3])
    chance = np.random.default_rng(0)
    within = closed_form(start[:3], 0.85 * start[3])[1][0]
    assert within.sum() > 5
    of_image, of_depth, of_mask = (chance.normal(size=(*SIZE, n)).astype(np.float32) for n in (3, 1, 1))
    of_image, of_depth = of_image * within[..., None], of_depth * within[..., None]

    def loss(params):
        distance = sphere(params[:3], params[3])
        colour = lambda p: jnp.sin(3 * p + params[4])  # noqa: E731
        found = seen(distance, colour, samples=64, sharpness=8.0)
        return jnp.stack([(found[name][0] * weights).sum() for name, weights in (
            ("image", of_image), ("depth", of_depth), ("mask", of_mask),
        )])  # fmt: skip

    value, slope = jax.jit(loss), jax.jit(jax.jacrev(loss))(start)
    for i in range(len(start)):
        step = jnp.zeros(len(start)).at[i].set(1e-2)
        expected = (value(start + step) - value(start - step)) / 2e-2
        np.testing.assert_allclose(slope[:, i], expected, rtol=0.05, atol=0.05, err_msg=str(i))


def test_a_ray_that_meets_nothing_has_a_gradient_towards_the_surface():
    def mask(radius):
        return seen(sphere(np.float32([0, 0, 0]), radius), sharpness=10.0)["mask"][0, 4, 0, 0]

    missed = float(jax.jit(mask)(0.2))
    assert 0 < missed < 0.5 and float(jax.jit(jax.grad(mask))(0.2)) > 0
