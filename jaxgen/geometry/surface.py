"""Surfaces of signed distances: their meshes by marching tetrahedra, and their depths by sphere tracing.

A grid's cells are cut into six tetrahedra each, all around the cell's long diagonal (Kuhn's triangulation), so that
neighbouring cells agree on their common faces and a closed surface becomes a watertight mesh. Of each tetrahedron that
the surface cuts, one or two triangles come out, with corners where a straight line between the values at two ends of an
edge is zero (Doi & Koide 1991; Shen et al. 2021, DMTet, equation 3), which is differentiable in the values.

The arrays have one size for all surfaces of a grid, so that everything compiles: each edge has a vertex and each
tetrahedron two triangles, and masks tell which are there. `compacted` takes these out, on the host.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from jaxgen.arrays import Array

Distance = Callable[[Array], Array]
# The edges that begin at a grid point, by how far their other end is along each axis.
EDGES = ((0, 0, 1), (0, 1, 0), (0, 1, 1), (1, 0, 0), (1, 0, 1), (1, 1, 0), (1, 1, 1))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Mesh:
    """Holds a mesh of fixed size, of which only a part is there.

    Attributes:
      vertices: `[V, 3]`; any value where no vertex is.
      has_vertex: `[V]`.
      faces: `[F, 3]` numbers of vertices, counterclockwise from outside.
      has_face: `[F]`.
    """

    vertices: Float[Array, "V 3"]
    has_vertex: Bool[Array, " V"]
    faces: Int[Array, "F 3"]
    has_face: Bool[Array, " F"]


def _triangles() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns what is known of the six tetrahedra before any surface is.

    Returns:
      `corners` [6, 4, 3], offsets from the cell's first point; `ends` [6, 6, 4]: of each edge the offset of where it
      begins, and its number in EDGES; `table` [6, 16, 2, 3]: the edges of the triangles for each set of corners inside
      (corner i counts 2**i), or -1.
    """
    corners, ends, table = np.zeros((6, 4, 3), int), np.zeros((6, 6, 4), int), np.full((6, 16, 2, 3), -1)
    pairs = list(itertools.combinations(range(4), 2))
    for tetrahedron, order in enumerate(itertools.permutations(range(3))):
        for step, axis in enumerate(order):
            corners[tetrahedron, step + 1] = corners[tetrahedron, step] + np.eye(3, dtype=int)[axis]
        own = corners[tetrahedron]
        middles = np.array([(own[a] + own[b]) / 2 for a, b in pairs])
        for edge, (a, b) in enumerate(pairs):
            ends[tetrahedron, edge] = [*own[a], EDGES.index(tuple((own[b] - own[a]).tolist()))]
        for case in range(1, 15):
            inside = [i for i in range(4) if case >> i & 1]
            outside = [i for i in range(4) if i not in inside]
            if len(inside) == 2:  # four edges are cut: a quadrilateral, whose corners go around
                (a, b), (c, d) = inside, outside
                around = [pairs.index((min(e), max(e))) for e in ((a, c), (a, d), (b, d), (b, c))]
                found = [around[:3], [around[0], *around[2:]]]
            else:
                apex, others = (inside[0], outside) if len(inside) == 1 else (outside[0], inside)
                found = [[pairs.index((min(apex, i), max(apex, i))) for i in others]]
            outwards = own[outside].mean(0) - own[inside].mean(0)
            for number, triangle in enumerate(found):
                one, two, three = middles[triangle]
                turned = np.cross(two - one, three - one) @ outwards < 0
                table[tetrahedron, case, number] = triangle[::-1] if turned else triangle
    return corners, ends, table


CORNERS, ENDS, TABLE = _triangles()


def grid(side: int) -> Float[np.ndarray, "side side side 3"]:
    """Returns the points of a grid over the box [-1, 1]^3; the first axis is x."""
    line = np.linspace(-1, 1, side, dtype=np.float32)
    return np.stack(np.meshgrid(line, line, line, indexing="ij"), -1)


def marching_tetrahedra(values: Float[Array, "X Y Z"], points: Float[Array, "X Y Z 3"]) -> Mesh:
    """Returns the mesh of the surface where values on a grid are zero.

    Args:
      values: negative inside. On the grid's border they count as outside, so that every surface is closed.
      points: where the grid's points are: of `grid`, or moved a little, as DMTet's are.

    Returns:
      A mesh of 7 X Y Z vertices and 12 (X - 1) (Y - 1) (Z - 1) faces, differentiable in values and points.
    """
    border = np.ones(values.shape, bool)
    border[1:-1, 1:-1, 1:-1] = False
    values = jnp.where(border, jnp.maximum(values, 1e-4), values)
    inside = values < 0
    vertices, has_vertex = [], []
    for edge in EDGES:
        shift = tuple(-step for step in edge)  # what is rolled around the border belongs to no face
        other, at = jnp.roll(values, shift, (0, 1, 2)), jnp.roll(points, shift, (0, 1, 2))
        cut = inside != jnp.roll(inside, shift, (0, 1, 2))
        share = jnp.where(cut, values / jnp.where(cut, values - other, 1.0), 0.5)
        vertices.append(points + share[..., None] * (at - points))
        has_vertex.append(cut)
    faces, has_face = _faces(inside)
    return Mesh(jnp.stack(vertices, 3).reshape(-1, 3), jnp.stack(has_vertex, 3).reshape(-1), faces, has_face)


def _faces(inside: Bool[Array, "X Y Z"]) -> tuple[Int[Array, "F 3"], Bool[Array, " F"]]:
    sides = inside.shape
    cells = tuple(side - 1 for side in sides)
    numbers = np.arange(np.prod(sides), dtype=np.int32).reshape(sides) * len(EDGES)

    def of_cells(array: Array | np.ndarray, offset: np.ndarray) -> Array:
        return jnp.asarray(array)[tuple(slice(o, o + n) for o, n in zip(offset, cells, strict=True))]

    faces, has_face = [], []
    for corners, ends, table in zip(CORNERS, ENDS, TABLE, strict=True):
        case = sum(of_cells(inside, corner).astype(jnp.int32) << i for i, corner in enumerate(corners))
        of_edges = jnp.stack([of_cells(numbers, end[:3]) + end[3] for end in ends], -1)  # [x, y, z, 6]
        triangles = jnp.asarray(table)[case]  # [x, y, z, 2, 3]
        there = triangles[..., 0] >= 0
        chosen = jnp.take_along_axis(of_edges[..., None, :], jnp.maximum(triangles, 0), -1)
        faces.append(chosen.reshape(-1, 3))
        has_face.append(there.reshape(-1))
    return jnp.concatenate(faces), jnp.concatenate(has_face)


def compacted(mesh: Mesh) -> tuple[Float[np.ndarray, "V 3"], Int[np.ndarray, "F 3"]]:
    """Returns the vertices and faces of a mesh that are there, as arrays of NumPy; both may be empty."""
    there = np.asarray(mesh.has_vertex)
    numbers = np.cumsum(there) - 1
    return np.asarray(mesh.vertices)[there], numbers[np.asarray(mesh.faces)[np.asarray(mesh.has_face)]]


def coloured_mesh(
    values: Float[np.ndarray, "S S S"], colours: Float[np.ndarray, "S S S C"]
) -> tuple[Float[np.ndarray, "V 3"], Int[np.ndarray, "F 3"], Float[np.ndarray, "V C"]]:
    """Returns the vertices, the faces, and the vertices' colours of a surface on a `grid`; all may be empty.

    Args:
      values: negative inside, as `marching_tetrahedra` has them.
      colours: at the grid's points.
    """
    vertices, faces = compacted(_marched(values, grid(len(values))))
    return vertices, faces, trilinear(colours, vertices)


_marched = jax.jit(marching_tetrahedra)


def trilinear(values: Float[np.ndarray, "S S S C"], points: Float[np.ndarray, "N 3"]) -> Float[np.ndarray, "N C"]:
    """Returns the values at points within [-1, 1]^3 of what is known on a `grid` of two or more points a side."""
    last = len(values) - 1
    place = (points + 1) * (last / 2)
    low = np.clip(np.floor(place).astype(int), 0, last - 1)
    share = place - low
    found = np.zeros((len(points), values.shape[-1]), values.dtype)
    for corner in itertools.product((0, 1), repeat=3):
        weight = np.where(corner, share, 1 - share).prod(-1, keepdims=True)
        found += weight.astype(values.dtype) * values[tuple((low + corner).T)]
    return found


def sphere_trace(
    distance: Distance,
    origin: Float[Array, "B 3"],
    directions: Float[Array, "B N 3"],
    near: Float[Array, "B N"],
    far: Float[Array, "B N"],
    steps: int = 64,
    tolerance: float = 1e-3,
) -> tuple[Float[Array, "B N"], Bool[Array, "B N"]]:
    """Returns the depths where rays first meet a surface, and which rays do (Hart 1996).

    The march has no gradient. The depth's is that of the implicit function (Niemeyer et al. 2020, equation 7): the
    change of the distance at the point found, over the distance's slope along the ray.

    Args:
      distance: of points `[B, M, 3]`, `[B, M]`, negative inside; it may also be shorter than the true one.
      origin: where the rays of each example begin.
      directions: of length one.
      near, far: where the march begins and ends; a ray without a hit has the depth `far`.
      steps: how many evaluations there are.
      tolerance: the distance that counts as met.
    """

    def at(depth: Array) -> Array:
        return distance(origin[:, None] + depth[..., None] * directions)

    def step(_: int, depth: Array) -> Array:
        return jnp.minimum(depth + jnp.where(depth < far, at(depth), 0.0), far)

    start = jax.lax.stop_gradient(near)
    depth = jax.lax.stop_gradient(jax.lax.fori_loop(0, steps, step, start))
    value, slope = jax.jvp(at, (depth,), (jnp.ones_like(depth),))
    slope = jax.lax.stop_gradient(slope)
    met = jax.lax.stop_gradient((jnp.abs(value) < tolerance) & (depth < far))
    exact = depth - value / jnp.where(slope < -1e-2, slope, -1.0)
    return jnp.where(met, exact, far), met
