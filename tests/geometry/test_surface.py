"""Surfaces: meshes are closed, of the right volume and kind, and differentiable; traced depths are the closed form."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import trimesh

from jaxgen.data.sources.solids.casting import Placed
from jaxgen.geometry import cameras, surface, volume

march = jax.jit(surface.marching_tetrahedra)
SIDE = 40
POINTS = surface.grid(SIDE)


def volume_of(vertices, faces):
    """The signed volume of a closed mesh, positive where its faces look outwards."""
    a, b, c = (vertices[faces[:, i]] for i in range(3))
    return (a * np.cross(b, c)).sum() / 6


def is_closed(faces):
    """Whether every edge lies between two faces, which run along it in opposite directions."""
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    kept, counts = np.unique(edges, axis=0, return_counts=True)
    return bool((counts == 1).all()) and {tuple(e) for e in kept.tolist()} == {tuple(e[::-1]) for e in kept.tolist()}


VOLUMES = {
    "sphere": 4 / 3 * np.pi * 0.6**3, "cube": (2 * 0.9 * 0.6) ** 3, "cone": np.pi * 0.6**2 * 1.2 / 3,
    "cylinder": np.pi * (0.85 * 0.6) ** 2 * 1.2, "torus": 2 * np.pi**2 * 0.75 * 0.27**2 * 0.6**3,
}  # fmt: skip


@pytest.mark.parametrize("name", VOLUMES)
def test_meshes_of_known_solids_are_closed_and_of_their_volume(name):
    mesh = march(Placed(name, 0.6, turn=0.3).distance(POINTS.astype(np.float64)), POINTS)
    vertices, faces = surface.compacted(mesh)
    assert is_closed(faces) and len(np.unique(faces)) == len(vertices)  # no vertex is left over
    euler = len(vertices) - 3 * len(faces) // 2 + len(faces)
    assert euler == (0 if name == "torus" else 2)
    assert abs(volume_of(vertices.astype(np.float64), faces) / VOLUMES[name] - 1) < 0.02


def test_trimesh_finds_a_mesh_watertight():
    vertices, faces = surface.compacted(march(Placed("torus", 0.8).distance(POINTS.astype(np.float64)), POINTS))
    mesh = trimesh.Trimesh(vertices, faces)
    assert mesh.is_watertight and mesh.is_winding_consistent and mesh.euler_number == 0
    assert abs(mesh.volume / (VOLUMES["torus"] * (0.8 / 0.6) ** 3) - 1) < 0.02


def test_vertices_have_the_colours_of_their_places():
    points = surface.grid(12)
    values = np.linalg.norm(points - np.float32([0.1, 0, -0.2]), axis=-1) - 0.5
    slopes = np.float32([[1, 2, 0], [0, -1, 3], [0.5, 0, 1]])
    vertices, faces, colours = surface.coloured_mesh(values, points @ slopes)
    assert is_closed(faces) and len(vertices) > 100
    np.testing.assert_allclose(colours, vertices @ slopes, atol=1e-5)  # exact, since they are linear
    corners = surface.trilinear(points, np.float32([[1, 1, 1], [-1, 1, -1]]))
    np.testing.assert_allclose(corners, [[1, 1, 1], [-1, 1, -1]], atol=1e-6)
    assert [len(x) for x in surface.coloured_mesh(np.ones_like(values), points)] == [0, 0, 0]


def test_what_reaches_the_border_is_closed_and_nothing_gives_nothing():
    rng = np.random.default_rng(0)
    points = surface.grid(9)
    vertices, faces = surface.compacted(march(rng.normal(size=(9, 9, 9)).astype(np.float32), points))
    assert is_closed(faces) and np.abs(vertices).max() <= 1
    for values in (np.ones((9, 9, 9), np.float32), np.zeros((9, 9, 9), np.float32)):
        vertices, faces = surface.compacted(march(values, points))
        assert vertices.shape == faces.shape == (0, 3)
    full = surface.compacted(march(-np.ones((9, 9, 9), np.float32), points))
    assert is_closed(full[1]) and 2**3 > volume_of(*full) > 0.9 * 2**3


def test_a_meshs_gradient_is_that_of_finite_differences():
    points = jnp.asarray(surface.grid(24))

    def size(radius):
        mesh = surface.marching_tetrahedra(jnp.linalg.norm(points, axis=-1) - radius, points)
        a, b, c = (mesh.vertices[mesh.faces[:, i]] for i in range(3))
        return jnp.where(mesh.has_face, (a * jnp.cross(b, c)).sum(-1), 0).sum() / 6

    found, step = jax.jit(jax.value_and_grad(size)), 2e-3
    gradient = float(found(0.63)[1])
    differences = float(found(0.63 + step)[0] - found(0.63 - step)[0]) / (2 * step)
    assert abs(gradient / differences - 1) < 0.02  # a corner that enters the ball bends the volume a little
    assert abs(gradient / (4 * np.pi * 0.63**2) - 1) < 0.03  # the volume grows by the area


def test_traced_depths_and_gradients_are_a_spheres_closed_form():
    camera = cameras.orbit(2)
    origin, directions = cameras.rays(camera, 15, 15)
    directions = directions.reshape(2, -1, 3)
    along = -(origin[:, None] * directions).sum(-1)
    inside = 0.36 - ((origin**2).sum(-1)[:, None] - along**2)
    core, clear = inside > 0.02, np.abs(inside) > 0.02  # rays that only graze come near, slowly
    weights = np.where(core, np.cos(np.arange(core.size).reshape(core.shape)), 0)

    @jax.jit
    def traced(radius):
        near, far = volume.ball(origin[:, None], directions)

        def weighted(radius):
            distance = lambda p: jnp.linalg.norm(p, axis=-1) - radius  # noqa: E731
            depth, met = surface.sphere_trace(distance, origin, directions, near, far, steps=40)
            return (depth * weights).sum(), (depth, met, far)

        return jax.value_and_grad(weighted, has_aux=True)(radius)

    (_, (depth, met, far)), gradient = jax.tree.map(np.asarray, traced(0.6))
    np.testing.assert_array_equal(met[clear], (inside > 0)[clear])
    np.testing.assert_allclose(depth[core], (along - np.sqrt(inside.clip(1e-9)))[core], atol=2e-5)
    np.testing.assert_array_equal(depth[~met], far[~met])
    np.testing.assert_allclose(gradient, -(0.6 / np.sqrt(inside.clip(1e-9)) * weights).sum(), rtol=1e-3)
    step = 1e-3
    differences = (traced(0.6 + step)[0][0] - traced(0.6 - step)[0][0]) / (2 * step)
    np.testing.assert_allclose(gradient, differences, rtol=2e-2)
