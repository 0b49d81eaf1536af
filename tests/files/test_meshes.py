"""Mesh files are read back by trimesh with their faces and colours, and what cannot be written is said."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh

from jaxgen.errors import UserError
from jaxgen.files import meshes

VERTICES = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 2]], np.float32)
FACES = np.array([[0, 2, 1], [0, 1, 3], [1, 2, 3], [0, 3, 2]])
COLOURS = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [10, 200, 30]], np.uint8)


@pytest.mark.parametrize("kind", meshes.FORMATS)
def test_a_mesh_is_read_back(kind, tmp_path):
    path = tmp_path / "new" / f"solid.{kind}"
    meshes.save_mesh(path, VERTICES, FACES, COLOURS)
    read = trimesh.load(path, force="mesh", process=False)
    assert read.is_watertight and abs(read.volume - 2 / 6) < 1e-6
    np.testing.assert_allclose(read.extents, (1, 2, 1) if kind == "glb" else (1, 1, 2))  # a .glb's y points up
    assert {tuple(c) for c in read.visual.vertex_colors[:, :3].tolist()} == {tuple(c) for c in COLOURS.tolist()}


def test_what_cannot_be_written_is_said(tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"\.glb, \.ply, \.obj"):
        meshes.save_mesh(tmp_path / "a.stl", VERTICES, FACES)
    monkeypatch.setattr(meshes, "can_write_meshes", lambda: True)
    with pytest.raises(UserError, match="no faces"):
        meshes.save_mesh(tmp_path / "a.ply", VERTICES, FACES[:0])
    monkeypatch.setattr(meshes, "can_write_meshes", lambda: False)
    with pytest.raises(UserError, match=r"jaxgen\[mesh\]"):
        meshes.save_mesh(tmp_path / "a.ply", VERTICES, FACES)
    assert list(tmp_path.iterdir()) == []
