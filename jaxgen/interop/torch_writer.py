"""Writes tensors to a `.pth` file that `torch.load` reads, also with `weights_only=True`, without torch.

The file is the zip archive of `torch.save` since torch 1.6: a pickle that describes an ordered dictionary of tensors,
and one file of plain bytes for each of them. `jaxgen.interop.torch_file` reads such files.
"""

from __future__ import annotations

import os
import struct
import zipfile
from collections.abc import Iterable, Mapping

import numpy as np

from jaxgen.errors import UserError, os_refusal
from jaxgen.files.writing import whole_file
from jaxgen.interop.torch_file import STORAGES

STORAGE_OF = {np.dtype(dtype): name for name, dtype in STORAGES.items()}
ORDERED_DICT = b"ccollections\nOrderedDict\n)R"  # opcodes: the class, no arguments, the call
REBUILD = b"ctorch._utils\n_rebuild_tensor_v2\n"


def write(path: str | os.PathLike[str], tensors: Mapping[str, np.ndarray]) -> None:
    """Writes arrays by name, as `torch.save` writes a module's `state_dict()`.

    Raises:
      UserError: an array's type is none of torch's, or the file cannot be written.
    """
    arrays = {name: np.array(value, order="C") for name, value in tensors.items()}
    for name, array in arrays.items():
        if array.dtype not in STORAGE_OF:
            raise UserError(f"{name!r} has type {array.dtype}, which torch does not have: convert it to float32.")
    try:
        with whole_file(path) as file, zipfile.ZipFile(file, "w") as archive:
            archive.writestr("archive/data.pkl", _pickled(arrays))
            archive.writestr("archive/byteorder", "little")
            for key, array in enumerate(arrays.values()):
                little = array.astype(array.dtype.newbyteorder("<"))
                archive.writestr(f"archive/data/{key}", little.tobytes())
            archive.writestr("archive/version", "3\n")
    except OSError as error:
        raise UserError(f"{path} cannot be written ({os_refusal(error)}).") from error


def _pickled(arrays: Mapping[str, np.ndarray]) -> bytes:
    """Returns the pickle, in protocol 2, of `OrderedDict(name=tensor, ...)`."""
    items = (_text(name) + _tensor(str(key), array) for key, (name, array) in enumerate(arrays.items()))
    return b"\x80\x02" + ORDERED_DICT + b"(" + b"".join(items) + b"u."


def _tensor(key: str, array: np.ndarray) -> bytes:
    """Returns `_rebuild_tensor_v2(storage, offset, size, stride, requires_grad, hooks)`."""
    kind = b"ctorch\n" + STORAGE_OF[array.dtype].encode() + b"\n"
    storage = _tuple((_text("storage"), kind, _text(key), _text("cpu"), _number(array.size))) + b"Q"
    steps = [step // array.itemsize for step in array.strides]
    shape = (_tuple(map(_number, numbers)) for numbers in (array.shape, steps))
    return REBUILD + _tuple((storage, _number(0), *shape, b"\x89", ORDERED_DICT)) + b"R"


def _tuple(parts: Iterable[bytes]) -> bytes:
    return b"(" + b"".join(parts) + b"t"


def _text(text: str) -> bytes:
    encoded = text.encode()
    return b"X" + struct.pack("<I", len(encoded)) + encoded


def _number(value: int) -> bytes:
    return b"\x8a\x08" + struct.pack("<q", value)
