"""Keeps the codes of embedded pictures, and directions of W, in .npz files."""

from __future__ import annotations

import dataclasses

import numpy as np
from etils import epath
from jaxtyping import Float

from jaxgen.editing.style_space.model import StyleModel
from jaxgen.errors import UserError, nearest
from jaxgen.files import whole_file
from jaxgen.files.arrays import read_npz, texts

NOISE = "noise_"  # and the number of the noise input


@dataclasses.dataclass(frozen=True)
class Codes:
    """Holds the codes of pictures.

    Attributes:
      names: of the pictures.
      styles: one for each layer.
      noise: a map for each noise input; empty where there is none.
      z: where it was searched; else None.
    """

    names: tuple[str, ...]
    styles: Float[np.ndarray, "N L D"]
    noise: tuple[Float[np.ndarray, "N h w 1"], ...] = ()
    z: Float[np.ndarray, "N Z"] | None = None

    def index(self, name: str, flag: str) -> int:
        """Returns the number of a picture. Raises a UserError for a name that is not among them."""
        if name not in self.names:
            raise UserError(f"{flag}={name}: the codes have no picture of this name; {nearest(name, self.names)}")
        return self.names.index(name)


@dataclasses.dataclass(frozen=True)
class Directions:
    """Holds directions in W.

    Attributes:
      names: such as "component_1", or "class_3".
      vectors: each of length 1.
      deviations: of the styles of random z along each, in which edits are counted.
    """

    names: tuple[str, ...]
    vectors: Float[np.ndarray, "K D"]
    deviations: Float[np.ndarray, " K"]


def write_codes(path: epath.PathLike, codes: Codes) -> None:
    """Writes codes."""
    more = {f"{NOISE}{i}": values for i, values in enumerate(codes.noise)}
    if codes.z is not None:
        more["z"] = codes.z
    _write(path, names=np.array(codes.names), styles=codes.styles, **more)


def read_codes(path: epath.PathLike, model: StyleModel, flag: str = "--codes") -> Codes:
    """Returns the codes of a file.

    Raises:
      UserError: it holds no codes, or those of another generator.
    """
    arrays, network = read_npz(path, flag), model.network
    names, styles = _taken(arrays, path, flag, "names", "styles")
    found = tuple(arrays[f"{NOISE}{i}"] for i in range(len(network.noise_shapes)) if f"{NOISE}{i}" in arrays)
    shapes = [(len(names), *shape) for shape in network.noise_shapes] if found else []
    wanted = (len(names), network.layers, network.w_dim)
    if styles.shape != wanted or [x.shape for x in found] != shapes or not len(names):
        raise UserError(
            f"{flag}={path}: the codes are styles {list(styles.shape)}, and this generator takes "
            f"[N, {network.layers}, {network.w_dim}] with its own noise: name the run that they were embedded with."
        )
    return Codes(names, styles.astype(np.float32), tuple(x.astype(np.float32) for x in found), arrays.get("z"))


def write_directions(path: epath.PathLike, directions: Directions) -> None:
    """Writes directions."""
    names = np.array(directions.names)
    _write(path, names=names, vectors=directions.vectors, deviations=directions.deviations)


def read_directions(path: epath.PathLike, model: StyleModel, flag: str = "--directions") -> Directions:
    """Returns the directions of a file.

    Raises:
      UserError: it holds no directions, or those of another generator.
    """
    arrays = read_npz(path, flag)
    names, vectors, deviations = _taken(arrays, path, flag, "names", "vectors", "deviations")
    if vectors.shape != (len(names), model.network.w_dim) or deviations.shape != (len(names),):
        raise UserError(
            f"{flag}={path}: the directions are {list(vectors.shape)}, and the styles of this generator have "
            f"{model.network.w_dim} numbers: name the run that they were found with."
        )
    return Directions(names, vectors.astype(np.float32), deviations.astype(np.float32))


def _taken(arrays: dict[str, np.ndarray], path: epath.PathLike, flag: str, *wanted: str) -> tuple:
    missing = [name for name in wanted if name not in arrays]
    if missing:
        raise UserError(f"{flag}={path} has no array {missing[0]!r}: give a file that this command has written.")
    numbers = [arrays[name] for name in wanted[1:]]
    if any(x.dtype.kind != "f" or not np.isfinite(x).all() for x in numbers):
        raise UserError(f"{flag}={path} holds values that are no finite numbers.")
    return (tuple(texts(arrays["names"], f"{flag}={path}").ravel().tolist()), *numbers)


def _write(path: epath.PathLike, **arrays: np.ndarray) -> None:
    with whole_file(path) as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]  # mypy fears an array "allow_pickle"
