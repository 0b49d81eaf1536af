"""How a method's pictures are laid out."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import trimesh
from etils import epath
from PIL import Image

from jaxgen.adversarial.mutual_information import Codes
from jaxgen.geometry import surface
from jaxgen.methods.gans.infogan import InfoGAN
from jaxgen.networks.gans.mlp import MLPDiscriminator, MLPGenerator
from jaxgen.sampling.outputs import write_meshes, write_panels


def test_a_table_has_the_columns_that_its_method_says(tmp_path):
    shape = (8, 8, 1)
    method = InfoGAN(MLPGenerator(shape), MLPDiscriminator(), shape, codes=Codes(categorical=(10,), continuous=1))
    pictures = {"categorical_0": np.zeros((30, *shape), np.float32), "other": np.zeros((30, *shape), np.float32)}
    generator = SimpleNamespace(method=method, panels=lambda *_: pictures)
    write_panels(tmp_path, generator, None, 0)
    sizes = [Image.open(tmp_path / f"panel_{name}.png").size for name in pictures]
    cells = [tuple((side - 1) // 49 for side in size) for size in sizes]  # of 48 pixels and a line
    assert cells == [(10, 3), (6, 5)]
    assert method.columns["continuous_0"] == method.columns["interpolation"] == 8


def test_objects_in_space_are_written_as_meshes_of_their_numbers(tmp_path, caplog):
    points = surface.grid(10)
    empty, ball = np.ones((10, 10, 10), np.float32), np.linalg.norm(points, axis=-1) - 0.6
    found = {"surface": np.stack([empty, ball]), "colour": np.broadcast_to(np.float32([1, -1, -1]), (2, *points.shape))}
    generator = SimpleNamespace(method=SimpleNamespace(has_volumes=True), volumes=lambda *_: found)
    write_meshes(epath.Path(tmp_path), generator, None, 0, 2)
    assert [path.name for path in (tmp_path / "meshes").iterdir()] == ["1.glb"]
    assert "sample 0 has no surface" in caplog.text
    mesh = trimesh.load(tmp_path / "meshes" / "1.glb", force="mesh", process=False)
    assert mesh.is_watertight and mesh.volume > 0 and (mesh.visual.vertex_colors[:, :3] == (255, 0, 0)).all()
