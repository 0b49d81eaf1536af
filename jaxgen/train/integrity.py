"""Checksums of what is stored: the storage libraries deliver a flipped bit in weights without a word.

About 0.4 seconds of one core for each gigabyte, at a save and at a restore.
"""

from __future__ import annotations

import json
import zlib
from typing import Any

import jax
import numpy as np


def checksums(tree: Any) -> dict[str, int]:
    """`{path: CRC-32}` of the values of every array of a tree, paths like `params/net/kernel`."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {jax.tree_util.keystr(path, simple=True, separator="/"): _checksum(leaf) for path, leaf in leaves}


def _checksum(array: Any) -> int:
    if isinstance(array, jax.Array) and array.is_fully_replicated:
        array = array.addressable_data(0)  # one of the copies; the others may be on other hosts
    return zlib.crc32(np.ascontiguousarray(array).reshape(-1).view(np.uint8))


def text_checksum(value: Any) -> int:
    """CRC-32 of a JSON-able value."""
    return zlib.crc32(json.dumps(value, sort_keys=True).encode())


def verify(found: dict[str, int], recorded: dict[str, int]) -> None:
    """Raises a ValueError naming the first array whose sum is not the recorded one; unrecorded ones pass."""
    for name, value in found.items():
        if recorded.get(name, value) != value:
            raise ValueError(f"{name!r} is not what was written: its checksum differs")
