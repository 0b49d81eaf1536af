"""Are the meshes that a text-to-3D model writes closed, of one part, and right to the eye?

    python main.py --workdir=runs/triplane_solids --mode=sample --prompt="a red cube on a blue sphere" --num=8 --out=DIR
    python -m studies.meshes --folder=DIR/meshes --picture=meshes.png

For each .glb file of the folder trimesh says whether its surface is watertight, of how many parts it is,
and its volume, where the ball that a triplane covers has 4.19. The picture has each mesh from the front and from
behind, above each other: points that are spread evenly over its faces, the nearest of each pixel, with a light from
above on the mesh's own colours.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from jaxtyping import Float, UInt8

from jaxgen.errors import UserError
from jaxgen.report.images import grid, save_png
from studies import harness

HEADS = ("mesh", "watertight", "parts", "volume", "faces")
POINTS, SIDE = 400_000, 96  # points of a mesh, pixels of a picture
REACH = 1.0  # how far from the centre a picture shows
VIEWS = (np.pi / 6, np.pi / 6 + np.pi)  # angles around the vertical axis
TILT = np.pi / 8  # the camera looks down by this angle
LIGHT = np.array((0.4, 0.75, 0.53))  # towards the light, of length one; y is up


def seen(mesh: Any, angle: float) -> UInt8[np.ndarray, "S S 3"]:
    """Returns a mesh on white as a parallel projection shows it, from an angle around the vertical axis."""
    import trimesh

    points, faces, colours = trimesh.sample.sample_surface(mesh, POINTS, sample_color=True, seed=0)
    shade = 0.6 + 0.4 * np.clip(mesh.face_normals[faces] @ LIGHT, 0, 1)
    turn = trimesh.transformations.rotation_matrix(TILT, (1, 0, 0)) @ trimesh.transformations.rotation_matrix(
        -angle, (0, 1, 0)
    )
    x, y, towards = (np.asarray(points) @ turn[:3, :3].T).T
    return nearest_points(x, y, towards, colours[:, :3] * shade[:, None])


def nearest_points(
    x: Float[np.ndarray, " N"],
    y: Float[np.ndarray, " N"],
    towards: Float[np.ndarray, " N"],
    colours: Float[np.ndarray, "N 3"],
) -> UInt8[np.ndarray, "S S 3"]:
    """Returns, for each pixel, the colour of the point that is nearest to the camera; white without one."""
    column, row = (np.floor((1 + sign * at / REACH) / 2 * SIDE).astype(int) for sign, at in ((1, x), (-1, y)))
    inside = (0 <= column) & (column < SIDE) & (0 <= row) & (row < SIDE)
    order = np.argsort(towards[inside])  # the nearest is written last
    picture = np.full((SIDE, SIDE, 3), 255, np.uint8)
    picture[row[inside][order], column[inside][order]] = np.rint(colours[inside][order]).astype(np.uint8)
    return picture


def main(
    folder: Annotated[Path, "meshes, as --mode=sample writes them"],
    picture: Annotated[str, "a PNG that is written"] = "",
) -> None:
    import trimesh

    files = sorted(folder.glob("*.glb"), key=lambda file: (len(file.name), file.name))
    if not files:
        raise UserError(f"--folder={folder} has no .glb files: give the folder `meshes` of --mode=sample.")
    meshes = {file.name: trimesh.load(file, force="mesh") for file in files}
    print(harness.table(HEADS, [
        (name, mesh.is_watertight, mesh.body_count, f"{mesh.volume:.3f}", len(mesh.faces))
        for name, mesh in meshes.items()
    ]))  # fmt: skip
    if picture:
        views = [seen(mesh, angle) for angle in VIEWS for mesh in meshes.values()]
        save_png(Path(picture), grid(np.stack(views), columns=len(meshes)))


if __name__ == "__main__":
    sys.exit(harness.run(main))
