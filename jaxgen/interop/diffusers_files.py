"""Reads and writes folders of diffusers' models, `config.json` and safetensors files, one tensor at a time.

A safetensors file has three parts: eight bytes with the length of the header, the header, and the numbers. The header
is JSON that gives each tensor's type, shape and place. A model may be cut into several files, which an index names.
Neither torch nor diffusers is imported. Memory holds at most one tensor more than those that the caller keeps.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import pathlib
import struct
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxgen.arrays import Array
from jaxgen.errors import UserError
from jaxgen.files import inside

CONFIG = "config.json"
MODEL = "diffusion_pytorch_model"  # the name of the file with the weights of a diffusers model, without its ending
TEXT_MODEL = "model"  # the same of a transformers model
VARIANTS = ("", ".fp16")  # in the order in which they are looked for

TYPES = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": jnp.bfloat16,
    "I64": np.int64,
    "I32": np.int32,
    "I16": np.int16,
    "I8": np.int8,
    "U8": np.uint8,
    "BOOL": np.bool_,
}
NAMES = {np.dtype(kind): name for name, kind in TYPES.items()}


def read_json(path: str | os.PathLike[str], what: str) -> dict[str, Any]:
    """Reads a JSON object.

    Args:
      path: the file.
      what: says in messages what the file is for, such as "gives the shapes".

    Raises:
      UserError: the file is missing or damaged.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise UserError(f"There is no file {path}, which {what}; restore it, or name another folder.")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is no JSON ({error}); fetch it again.") from error
    if not isinstance(found, dict):
        raise UserError(f"{path} holds no JSON object; fetch it again.")
    return found


def write_json(path: str | os.PathLike[str], value: Mapping[str, Any]) -> None:
    """Writes a JSON object, and creates its folder if that is missing."""
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


@dataclasses.dataclass(frozen=True)
class Place:
    """Says where a tensor is: `size` bytes of the file `path`, from the byte `start` on."""

    path: pathlib.Path
    dtype: np.dtype
    shape: tuple[int, ...]
    start: int
    size: int


class Weights(Mapping[str, np.ndarray]):
    """A model's tensors by name; each is read from the disk when it is asked for.

    Attributes:
      places: the place of each tensor, `{name: Place}`.
      folder: the model's folder, for messages.
    """

    def __init__(self, places: Mapping[str, Place], folder: str | os.PathLike[str] = ""):
        self.places, self.folder = dict(places), os.fspath(folder)

    def __getitem__(self, name: str) -> np.ndarray:
        place = self.places[name]
        try:
            found = np.fromfile(place.path, np.uint8, place.size, offset=place.start)
        except OSError as error:
            raise UserError(f"{place.path} cannot be read ({error.strerror or error}).") from error
        if len(found) != place.size:
            raise UserError(f"{place.path} ends before its last tensor; fetch it again.")
        return found.view(place.dtype).reshape(place.shape)

    def __iter__(self) -> Iterator[str]:
        return iter(self.places)

    def __len__(self) -> int:
        return len(self.places)

    @property
    def size(self) -> int:
        """Returns the number of bytes of all tensors."""
        return sum(place.size for place in self.places.values())


def open_weights(folder: str | os.PathLike[str], stem: str = MODEL) -> Weights:
    """Opens the tensors of a folder: `<stem>.safetensors`, or the files that `<stem>.safetensors.index.json` names.

    If both are missing, the files with `.fp16` before `.safetensors` are taken.

    Raises:
      UserError: a file is missing or damaged.
    """
    folder = pathlib.Path(folder)
    for variant in VARIANTS:
        whole = folder / f"{stem}{variant}.safetensors"
        index = folder / f"{stem}.safetensors.index{variant}.json"
        if whole.is_file():
            return Weights(read_header(whole), folder)
        if index.is_file():
            return Weights(_read_shards(index), folder)
    pickled = next((name for name in (f"{stem}.bin", "pytorch_model.bin") if (folder / name).is_file()), "")
    if pickled:
        raise UserError(
            f"{folder} has its weights in {pickled} only, a pickle: save the model again with safe_serialization=True."
        )
    raise UserError(
        f"There is no file {folder / stem}.safetensors with the weights; restore it, or name another folder."
    )


def _read_shards(index: pathlib.Path) -> dict[str, Place]:
    names = read_json(index, "names the files of the weights").get("weight_map")
    if not isinstance(names, dict) or not names:
        raise UserError(f"{index} has no 'weight_map' from tensors to files; fetch it again.")
    places: dict[str, Place] = {}
    for path in sorted({pathlib.Path(inside(index.parent, file, index)) for file in names.values()}):
        if not path.is_file():
            raise UserError(f"There is no file {path}, which {index.name} names; restore it.")
        places |= read_header(path)
    lost = next((name for name in names if name not in places), None)
    if lost is not None:
        raise UserError(f"{index} promises {lost!r} in {names[lost]}, which does not hold it; fetch both again.")
    return places


def read_header(path: pathlib.Path) -> dict[str, Place]:
    """Returns the places of the tensors of one safetensors file. Raises UserError if it is damaged or no such file."""
    try:
        with path.open("rb") as opened:
            end = os.fstat(opened.fileno()).st_size
            (length,) = struct.unpack("<Q", opened.read(8))
            if length > end - 8:
                raise ValueError("it is shorter than its header says")
            header = json.loads(opened.read(length))
        places = {}
        for name, told in header.items():
            if name == "__metadata__":
                continue
            dtype, shape = np.dtype(TYPES[told["dtype"]]), tuple(told["shape"])
            first, last = told["data_offsets"]
            if not 0 <= first <= last <= end - 8 - length or last - first != math.prod(shape) * dtype.itemsize:
                raise ValueError(f"{name!r} does not fit into it")
            places[name] = Place(path, dtype, shape, 8 + length + first, last - first)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or error}).") from error
    except (ValueError, TypeError, KeyError, AttributeError, struct.error) as error:
        raise UserError(f"{path} is damaged, or no safetensors file ({error}); fetch it again.") from error
    return places


@dataclasses.dataclass(frozen=True)
class Entry:
    """Holds a tensor that is to be written.

    Attributes:
      name: its name in the file.
      leaf: the array here.
      axes: the axes of `leaf` in the order of the file.
      tail: axes of length 1 that only the file has, after the others.
    """

    name: str
    leaf: np.ndarray | Array
    axes: tuple[int, ...]
    tail: tuple[int, ...] = ()

    @property
    def shape(self) -> tuple[int, ...]:
        return (*(self.leaf.shape[axis] for axis in self.axes), *self.tail)

    def array(self) -> np.ndarray:
        """Returns the tensor as the file has it."""
        return np.ascontiguousarray(np.asarray(self.leaf).transpose(self.axes)).reshape(self.shape)


def save_weights(path: str | os.PathLike[str], entries: Iterable[Entry], dtype: str = "") -> None:
    """Writes a safetensors file, one tensor after the other.

    Args:
      path: the file.
      entries: the tensors.
      dtype: the type of all floating tensors in the file, such as "float16"; by default each keeps its own.

    Raises:
      UserError: the format does not have a tensor's type.
    """
    path, entries = pathlib.Path(path), list(entries)
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    place = 0
    kinds = []
    for entry in entries:
        floating = jnp.issubdtype(entry.leaf.dtype, jnp.floating)
        kind = jnp.dtype(dtype) if dtype and floating else np.dtype(entry.leaf.dtype)
        if kind not in NAMES:
            raise UserError(f"a safetensors file has no type {kind.name}; known are float32, float16 and bfloat16.")
        size = math.prod(entry.shape) * kind.itemsize
        header[entry.name] = {"dtype": NAMES[kind], "shape": entry.shape, "data_offsets": [place, place + size]}
        place += size
        kinds.append(kind)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as opened:
        opened.write(struct.pack("<Q", len(text)) + text)
        for entry, kind in zip(entries, kinds, strict=True):
            opened.write(entry.array().astype(kind, copy=False).tobytes())
