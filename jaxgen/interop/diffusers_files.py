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
from types import MappingProxyType
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxgen import files
from jaxgen.arrays import Array
from jaxgen.errors import UserError
from jaxgen.files import inside, parse_json, regular_file, whole_file
from jaxgen.files.reading import as_type_of
from jaxgen.interop.file_types import Header, TensorEntry, WeightsIndex

CONFIG = "config.json"
MODEL = "diffusion_pytorch_model"  # the name of the file with the weights of a diffusers model, without its ending
TEXT_MODEL = "model"  # the same of a transformers model
METADATA = "__metadata__"  # the entry of a header that is no tensor
PICKLED, ZIPPED = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"), b"PK\x03\x04"  # how files of pickles begin
VARIANTS = ("", ".fp16")  # in the order in which they are looked for
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".msgpack", ".h5", ".bin.index.json")  # and formats of other frameworks

TYPES = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": jnp.bfloat16,
    "I64": np.int64,
    "I32": np.int32,
    "I16": np.int16,
    "I8": np.int8,
    "U32": np.uint32,
    "U8": np.uint8,
    "BOOL": np.bool_,
}
NAMES = {np.dtype(kind): name for name, kind in TYPES.items()}


def read_json(path: str | os.PathLike[str], what: str, as_type: Any = dict[str, Any]) -> dict[str, Any]:
    """Reads a JSON object.

    Args:
      path: the file.
      what: says in messages what the file is for, such as "gives the shapes".
      as_type: what its entries must be; entries that the type does not name are kept.

    Raises:
      UserError: the file is missing or damaged, or an entry is of another type.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise UserError(f"There is no file {path}, which {what}; restore it, or name another folder.")
    found = files.read_json(path)
    as_type_of(found, str(path), as_type)
    return found


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
    raise UserError(_why_none(folder, stem))


def _why_none(folder: pathlib.Path, stem: str) -> str:
    """Returns one sentence on a folder without weights that can be read; it names those that cannot."""
    wanted = f"{stem}.safetensors"
    there = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    for name in there:
        if name.endswith(PICKLES) and name.split(".")[0] in (stem, "pytorch_model", MODEL, TEXT_MODEL):
            return (
                f"{folder} has its weights in {name} only, which is not read: save the model again with "
                "safe_serialization=True."
            )
    for name in there:
        if name.endswith((".safetensors", ".safetensors.index.json")) or ".safetensors.index." in name:
            return (
                f"{folder} has {name}, but no {wanted}: other variants than .fp16 are not read; rename the file to "
                f"{wanted} if these are the weights that are meant."
            )
    return f"There is no file {folder / stem}.safetensors with the weights; restore it, or name another folder."


def _read_shards(index: pathlib.Path) -> dict[str, Place]:
    names = read_json(index, "names the files of the weights", WeightsIndex)["weight_map"]
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
    """Returns the places of the tensors of one safetensors file.

    Raises:
      UserError: it is damaged or no such file, or it holds numbers of a type that is not read.
    """
    header, start, size = _header(path)
    try:
        entries = {
            name: as_type_of(told, f"its header, tensor {name!r}", TensorEntry)
            for name, told in header.items()
            if name != METADATA
        }
    except UserError as error:
        raise _damaged(path, str(error)) from error
    return _places(path, entries, start, size)


def read_metadata(path: pathlib.Path) -> dict[str, str]:
    """Returns what the header of a safetensors file says beside its tensors, which are texts by name.

    Raises:
      UserError: as `read_header`.
    """
    try:
        return as_type_of(_header(path)[0].get(METADATA, {}), f"its header's {METADATA}", dict[str, str])
    except UserError as error:
        raise _damaged(path, str(error)) from error


def _header(path: pathlib.Path) -> tuple[Header, int, int]:
    """Returns a file's header, the byte at which the numbers begin, and how many bytes of numbers there are."""
    try:
        with (regular_file(path, "the weights") if path.exists() else path).open("rb") as opened:
            end = os.fstat(opened.fileno()).st_size
            start = opened.read(8)
            length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
            text = opened.read(length) if 0 < length <= end - 8 else b""
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or error}).") from error
    if not text:
        if start[:2] in PICKLED or start[:4] == ZIPPED:
            raise UserError(
                f"{path} is a pickle, whatever its name says, which can run any program when it is opened and is not "
                "read: save it again as safetensors."
            )
        claims = f"its header claims {length} bytes, and the file has {end}"
        raise _damaged(path, claims if length else "it has no header")
    try:
        return parse_json(text, "its header", Header), 8 + length, end - 8 - length
    except UserError as error:
        raise _damaged(path, str(error)) from error


def _places(path: pathlib.Path, entries: Mapping[str, Any], start: int, size: int) -> dict[str, Place]:
    """Returns the places of tensors in the `size` bytes from `start` on, after checking that they lie there."""
    places, before, last_name = {}, 0, ""
    for name, told in sorted(entries.items(), key=lambda entry: entry[1]["data_offsets"]):
        kind = told["dtype"]
        if kind not in TYPES:
            raise UserError(
                f"{path}: {name!r} holds numbers of the type {kind!r}; read are {', '.join(TYPES)}. "
                "Save the model again in one of these."
            )
        dtype, shape, (first, last) = np.dtype(TYPES[kind]), tuple(told["shape"]), told["data_offsets"]
        wanted = math.prod(shape) * dtype.itemsize
        if last - first != wanted:
            raise _damaged(path, f"{name!r} of shape {shape} in {kind} needs {wanted} bytes, and has {last - first}")
        if last > size:
            raise _damaged(path, f"{name!r} ends at byte {last}, and there are {size} bytes of numbers")
        if first < before and last > first:
            raise _damaged(path, f"{name!r} and {last_name!r} overlap")
        places[name] = Place(path, dtype, shape, start + first, last - first)
        before, last_name = max(before, last), name
    return {name: places[name] for name in entries}


def _damaged(path: pathlib.Path, reason: str) -> UserError:
    return UserError(f"{path} is damaged, or no safetensors file ({reason.rstrip('.')}); fetch it again.")


def check_floating(name: str, dtype: Any, where: str) -> None:
    """Raises a UserError for a weight whose numbers are not floating: quantised weights cannot be read as they are."""
    if not jnp.issubdtype(dtype, jnp.floating):
        raise UserError(
            f"{name!r} of {where} holds {np.dtype(dtype).name} numbers, which are no weights as they are; read are "
            "float16, bfloat16, float32 and float64: save the model again in one of these."
        )


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


def save_weights(
    path: str | os.PathLike[str],
    entries: Iterable[Entry],
    dtype: str = "",
    metadata: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Writes a safetensors file, one tensor after the other; it appears under its name when it is complete.

    Args:
      path: the file.
      entries: the tensors.
      dtype: the type of all floating tensors in the file, such as "float16"; by default each keeps its own.
      metadata: texts that the header says beside the tensors.

    Raises:
      UserError: the format does not have a tensor's type.
    """
    path, entries = pathlib.Path(path), list(entries)
    header: dict[str, Any] = {METADATA: {"format": "pt", **metadata}}
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
    with whole_file(path) as opened:
        opened.write(struct.pack("<Q", len(text)) + text)
        for entry, kind in zip(entries, kinds, strict=True):
            opened.write(entry.array().astype(kind, copy=False).tobytes())


def save_folder(
    folder: str | os.PathLike[str], entries: Iterable[Entry], stem: str = MODEL, dtype: str = "", most: int = 0
) -> None:
    """Writes the weights of a folder as `open_weights` reads them: one file, or several and their index.

    Args:
      most: the most bytes of tensors of one file, unless a single tensor is larger; 0 writes one file. The other
        arguments are those of `save_weights`.

    Raises:
      UserError: as `save_weights`.
    """
    folder = pathlib.Path(folder)
    parts: list[list[Entry]] = [[]]
    total = size = 0
    for entry in entries:
        floating = dtype and jnp.issubdtype(entry.leaf.dtype, jnp.floating)
        own = math.prod(entry.shape) * np.dtype(jnp.dtype(dtype) if floating else entry.leaf.dtype).itemsize
        if most and parts[-1] and size + own > most:
            parts.append([])
            size = 0
        parts[-1].append(entry)
        size, total = size + own, total + own
    if len(parts) == 1:
        return save_weights(folder / f"{stem}.safetensors", parts[0], dtype)
    names: dict[str, str] = {}
    for number, part in enumerate(parts, start=1):
        file = f"{stem}-{number:05d}-of-{len(parts):05d}.safetensors"
        save_weights(folder / file, part, dtype)
        names |= {entry.name: file for entry in part}
    files.write_json(
        folder / f"{stem}.safetensors.index.json", {"metadata": {"total_size": total}, "weight_map": names}
    )
