"""Writes meshes with colours as .glb, .ply or .obj, by trimesh: pip install "jaxgen[mesh]"."""

from __future__ import annotations

import importlib.util

import numpy as np
from etils import epath
from jaxtyping import Float, Int, UInt8

from jaxgen.errors import UserError
from jaxgen.files.writing import write_bytes

FORMATS = ("glb", "ply", "obj")


def can_write_meshes() -> bool:
    """Tells whether trimesh is installed, which `save_mesh` needs: pip install "jaxgen[mesh]"."""
    return importlib.util.find_spec("trimesh") is not None


def save_mesh(
    path: epath.PathLike,
    vertices: Float[np.ndarray, "V 3"],
    faces: Int[np.ndarray, "F 3"],
    colours: UInt8[np.ndarray, "V 3"] | None = None,
) -> None:
    """Writes a mesh atomically, in the format that the path's ending names.

    In a .glb the y axis points up, as its standard says: the world's z becomes its y. The others keep the world's axes.

    Args:
      path: its ending is .glb, .ply or .obj.
      vertices: places in a world whose z points up.
      faces: numbers of vertices, counterclockwise from outside.
      colours: of the vertices.

    Raises:
      UserError: trimesh is not installed, the ending is another one, or there are no faces.
    """
    kind = epath.Path(path).suffix.lower().removeprefix(".")
    if kind not in FORMATS:
        endings = ", ".join(f".{name}" for name in FORMATS)
        raise UserError(f"{path}: a mesh is written as {endings}; choose one of these.")
    if not can_write_meshes():
        raise UserError('Meshes are written by trimesh, which is not installed: pip install "jaxgen[mesh]".')
    if len(faces) == 0:
        raise UserError(f"{path}: the mesh has no faces, so there is nothing to write; its surface may be empty.")
    import trimesh

    if kind == "glb":
        vertices = np.stack([vertices[:, 0], vertices[:, 2], -vertices[:, 1]], -1)
    mesh = trimesh.Trimesh(vertices, faces, vertex_colors=colours, process=False)
    data = mesh.export(file_type=kind)
    write_bytes(path, data if isinstance(data, bytes) else str(data).encode("utf-8"))
