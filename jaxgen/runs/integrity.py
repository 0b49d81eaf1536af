"""Checks what a checkpoint's folder holds, since the storage libraries read whatever is there.

They wait for a pipe without an end, and they do not notice a flipped bit in weights, for which there are checksums.

A checksum takes about 0.4 seconds of one core for each gigabyte, at a save and at a restore. It takes a few times as
long for arrays that are split over several processes, each of which reads only its own parts.
"""

from __future__ import annotations

import json
import math
import pathlib
import zlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from etils import epath
from jax.typing import ArrayLike

from jaxgen.arrays import Tree
from jaxgen.errors import UserError
from jaxgen.files import is_remote
from jaxgen.parallel.distributed import added, gathered
from jaxgen.sizes import whole

SPLIT = "#sum"  # follows the path of an array whose checksum is computed from its parts
CHUNK = 1 << 15  # the number of values that are mixed at once: few enough for a core's cache


def check_files(folder: epath.PathLike, pattern: str = "**/*") -> None:
    """Raises a ValueError where a pipe or a device is in the place of a file: reading it might never end."""
    for path in [] if is_remote(folder) else pathlib.Path(folder).glob(pattern):
        if path.exists() and not path.is_dir() and not path.is_file():
            raise ValueError(f"{path} is a pipe or a device, not a file.")


def checksums(tree: Tree, recorded: Mapping[str, int] | None = None) -> dict[str, int]:
    """Returns `{path: checksum}` of the values of every array of a tree; a path is like `params/net/kernel`.

    For an array that this process has completely, it is the CRC-32, under the array's path. For an array that is split
    over processes, it is a sum modulo 2^32 that does not depend on how it is split, under the path followed by SPLIT.
    Every process must call this function with the same paths.

    Args:
      tree: the arrays.
      recorded: earlier checksums, which decide the kind of checksum for their paths.
    """
    recorded = recorded or {}
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    found: dict[str, int] = {}
    sums: dict[str, int] = {}
    for path, leaf in leaves:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        split = isinstance(leaf, jax.Array) and not (leaf.is_fully_addressable or leaf.is_fully_replicated)
        if name + SPLIT in recorded or (split and name not in recorded):
            sums[name + SPLIT] = _sum_here(leaf)
        else:
            found[name] = zlib.crc32(np.ascontiguousarray(_whole(leaf)).reshape(-1).view(np.uint8).data)
    if sums:
        total = added(np.array(list(sums.values()), np.uint32))
        found |= {name: int(value) for name, value in zip(sums, total, strict=True)}
    return found


def _whole(array: ArrayLike) -> jax.Array | np.ndarray:
    if isinstance(array, jax.Array) and array.is_fully_replicated:
        return array.addressable_data(0)  # one of the copies; the others may be on other hosts
    return gathered(array)


def _sum_here(array: ArrayLike) -> int:
    """Returns this process's part of the sum; of every piece of the array, exactly one process counts one copy."""
    if not isinstance(array, jax.Array):
        whole = np.asarray(array)
        return _mixed(whole, (slice(None),) * whole.ndim, whole.shape) if jax.process_index() == 0 else 0
    pieces = [shard for shard in array.addressable_shards if shard.replica_id == 0]
    return sum(_mixed(np.asarray(piece.data), piece.index, array.shape) for piece in pieces) % 2**32


def _mixed(values: np.ndarray, index: tuple[slice, ...], shape: tuple[int, ...]) -> int:
    """Returns the sum, modulo 2^32, of every value's bits mixed with its place in the full array of `shape`.

    At each place the mixing (the finaliser of MurmurHash3, Appleby 2011) is one to one, so that any single changed
    value of up to 32 bits changes the sum.
    """
    rows = values.reshape(1, -1) if values.ndim < 2 else values.reshape(len(values), -1)
    start = [part.indices(length)[0] for part, length in zip(index, shape, strict=True)]
    # places within a row of the full array, for the values of one row of this piece
    inner: np.ndarray = np.zeros((), np.uint32)
    for d in range(1 if values.ndim > 1 else 0, values.ndim):
        steps = np.arange(start[d], start[d] + values.shape[d], dtype=np.uint64) * np.uint64(math.prod(shape[d + 1 :]))
        inner = inner[..., None] + steps.astype(np.uint32)
    inner, row = inner.reshape(-1), math.prod(shape[1:]) if values.ndim > 1 else 0
    first = start[0] if values.ndim > 1 else 0
    words = max(values.dtype.itemsize // 4, 1)  # the number of 32-bit words in one value
    total = 0
    for number, line in enumerate(rows):
        for at in range(0, len(line), CHUNK):
            bits: np.ndarray = np.ascontiguousarray(line[at : at + CHUNK]).view(f"u{min(values.dtype.itemsize, 4)}")
            place: np.ndarray = inner[at : at + CHUNK] + np.uint32((first + number) * row % 2**32)
            if words > 1:
                place = (place[:, None] * np.uint32(words) + np.arange(words, dtype=np.uint32)).reshape(-1)
            mixed = place * np.uint32(0x9E3779B1)
            mixed ^= bits.astype(np.uint32, copy=False)
            for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
                mixed ^= mixed >> np.uint32(shift)
                mixed *= np.uint32(factor)
            mixed ^= mixed >> np.uint32(16)
            total += int(mixed.sum(dtype=np.uint64))
    return total % 2**32


def text_checksum(value: object) -> int:
    """Returns the CRC-32 of a JSON-able value."""
    return zlib.crc32(json.dumps(value, sort_keys=True).encode())


def verify(found: dict[str, int], recorded: dict[str, int]) -> None:
    """Raises a ValueError naming the first array whose sum is not the recorded one; unrecorded ones pass."""
    for name, value in found.items():
        if recorded.get(name, value) != value:
            raise ValueError(f"{name!r} is not what was written: its checksum differs")


def checkpoint_folders(workdir: epath.Path, where: str) -> dict[int, epath.Path]:
    """Returns `{step: folder}` of a run's checkpoints. Raises a UserError that names `where` if there is none."""
    root = workdir / "checkpoints"
    found = {int(p.name): p for p in root.iterdir() if whole(p.name) is not None} if root.exists() else {}
    if not found:
        raise UserError(f"{where} has no finished checkpoint; train that run first.")
    return found


def read_meta(at: epath.Path) -> dict[str, Any]:
    """Returns what a checkpoint's folder records beside its arrays: the fields of `jaxgen.runs.checkpoint.Meta`."""
    return json.loads((at / "meta" / "metadata").read_text())
