from __future__ import annotations

import numpy as np
import pytest
import trimesh

from jaxgen.errors import UserError
from jaxgen.files.meshes import save_mesh
from jaxgen.geometry import surface
from studies import meshes


def ball(tmp_path):
    """A ball of radius 1/2 whose half with x > 0 is red, the other blue, as a .glb."""
    points = surface.grid(24)
    vertices, faces = surface.compacted(surface.marching_tetrahedra(np.linalg.norm(points, axis=-1) - 0.5, points))
    colours = np.where(np.asarray(vertices)[:, :1] > 0, (255, 0, 0), (0, 0, 255)).astype(np.uint8)
    save_mesh(tmp_path / "0.glb", vertices, faces, colours)


def test_a_mesh_is_counted_and_seen_from_two_sides(tmp_path, capsys):
    ball(tmp_path)
    meshes.main(tmp_path, str(tmp_path / "picture.png"))
    assert "| 0.glb | True | 1 |" in capsys.readouterr().out
    mesh = trimesh.load(tmp_path / "0.glb", force="mesh")
    assert abs(mesh.volume - 4 / 3 * np.pi / 8) < 0.02
    front, back = (meshes.seen(mesh, angle).astype(int) for angle in (0.0, np.pi))
    covered = (front != 255).any(-1)
    radius = 0.5 / meshes.REACH * meshes.SIDE / 2
    assert abs(covered.sum() / (np.pi * radius**2) - 1) < 0.05
    middle = meshes.SIDE // 2
    for picture, right in ((front, 0), (back, 2)):  # the red half is on the right from the front, and left from behind
        assert picture[middle, middle + 10].argmax() == right and picture[middle, middle - 10].argmax() == 2 - right


def test_the_nearest_point_is_seen():
    none, colours = np.zeros(2), np.array([[255.0, 0, 0], [0, 255.0, 0]])
    for towards, expected in (((0.1, 0.3), (0, 255, 0)), ((0.5, 0.3), (255, 0, 0))):
        picture = meshes.nearest_points(none, none, np.array(towards), colours)
        assert tuple(picture[meshes.SIDE // 2, meshes.SIDE // 2]) == expected
        assert (picture == 255).all(-1).sum() == meshes.SIDE**2 - 1


def test_a_folder_without_meshes_is_refused(tmp_path):
    with pytest.raises(UserError, match="has no .glb files"):
        meshes.main(tmp_path)
