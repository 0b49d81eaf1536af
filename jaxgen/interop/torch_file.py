"""Reads tensors from a PyTorch `.pth` file, without torch and without running code that the file names.

Both formats of `torch.save` are read: a zip archive (since torch 1.6) and a sequence of pickles (before). In both, a
pickle describes the tensors, and plain bytes after it, the *storages*, hold their numbers. The unpickler here accepts
only the names that tensors and dictionaries need and refuses every other name, so that a file cannot call anything.
"""

from __future__ import annotations

import collections
import dataclasses
import io
import os
import pathlib
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO, Literal

import jax.numpy as jnp
import numpy as np

from jaxgen.errors import UserError
from jaxgen.files import regular_file

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_PROTOCOL = 1001
STORAGES = {
    "FloatStorage": np.float32,
    "DoubleStorage": np.float64,
    "HalfStorage": np.float16,
    "BFloat16Storage": jnp.bfloat16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
    "ComplexFloatStorage": np.complex64,
    "ComplexDoubleStorage": np.complex128,
}
# the errors that zipfile, pickle and NumPy raise for the bytes of a damaged file
DAMAGED: tuple[type[Exception], ...] = (
    zipfile.BadZipFile, zlib.error, pickle.UnpicklingError, struct.error, EOFError, ValueError, TypeError,
    LookupError, AttributeError, AssertionError, OverflowError, RuntimeError, MemoryError,
)  # fmt: skip
ByteOrder = Literal["<", ">"]


@dataclasses.dataclass(frozen=True)
class _Storage:
    """Says where a tensor's numbers are: they are the elements from `start` on of the bytes called `key`."""

    key: str
    dtype: np.dtype
    start: int = 0


@dataclasses.dataclass(frozen=True)
class _Tensor:
    """Holds a tensor whose storage has not been read yet; its offset, sizes and strides count elements."""

    storage: _Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    def array(self, data: bytes, order: ByteOrder) -> np.ndarray:
        """Returns a read-only array that shares the storage's bytes, or a copy if it is not contiguous."""
        numbers = np.frombuffer(data, self.storage.dtype.newbyteorder(order))
        found = strided(numbers, self.storage.start + self.offset, self.size, self.stride)
        return np.ascontiguousarray(found, self.storage.dtype).reshape(self.size)


def strided(numbers: np.ndarray, start: int, size: tuple[int, ...], stride: tuple[int, ...]) -> np.ndarray:
    """Returns a read-only array of `size` within flat numbers; start and strides count elements, as a file has them.

    Raises:
      ValueError: they are no whole numbers, or the array lies outside of the numbers.
    """
    if any(type(n) is not int or n < 0 for n in (start, *size, *stride)):
        raise ValueError("a tensor's sizes are no whole numbers")
    if 0 in size:
        return np.zeros(size, numbers.dtype)
    if start + sum((n - 1) * step for n, step in zip(size, stride, strict=True)) >= len(numbers):
        raise ValueError(f"a tensor of shape {size} lies outside its {len(numbers)} numbers")
    steps = [step * numbers.itemsize for step in stride]
    return np.lib.stride_tricks.as_strided(numbers[start:], size, steps, writeable=False)


class _Parameter:
    """Holds a parameter of an old file: a tensor, and flags that are ignored."""

    data: _Tensor

    def __new__(cls, data: _Tensor, *_: Any) -> _Parameter:
        made = super().__new__(cls)
        made.data = data
        return made

    def __setstate__(self, state: Any) -> None:
        pass


class _Unpickler(pickle._Unpickler):  # the one in C takes gigabytes where a damaged byte asks for them
    """Makes dictionaries, numbers, strings and `_Tensor`s, and refuses every other name."""

    def __init__(self, file: BinaryIO, path: pathlib.Path):
        super().__init__(file, encoding="utf-8")
        self._path = path
        self.widths: dict[str, int] = {}  # the bytes of an element of each storage

    def find_class(self, module: str, name: str) -> Any:
        known: Mapping[tuple[str, str], Any] = {
            ("collections", "OrderedDict"): collections.OrderedDict,
            ("torch._utils", "_rebuild_tensor"): self._tensor,
            ("torch._utils", "_rebuild_tensor_v2"): self._tensor,
            ("torch._utils", "_rebuild_parameter"): self._data,
            ("torch.nn.parameter", "Parameter"): _Parameter,
        }
        if (module, name) in known:
            return known[module, name]
        if module == "torch" and name in STORAGES:
            return name
        raise UserError(
            f"{self._path} asks for {module}.{name}, which plain tensors do not need, so it is not read; "
            "save the model's state_dict() alone."
        )

    def persistent_load(self, entry: tuple) -> _Storage:
        """Returns a storage from `("storage", type, key, device, number of elements)`; old files append a view."""
        kind, storage, key, *_ = entry
        if kind != "storage":
            raise ValueError(f"{kind!r} is no storage")
        view = entry[5] if len(entry) > 5 else None
        dtype = np.dtype(STORAGES[storage])
        self.widths[str(key)] = dtype.itemsize
        return _Storage(str(key), dtype, 0 if view is None else view[1])

    def _tensor(self, storage: _Storage, offset: int, size: tuple, stride: tuple, *_: Any) -> _Tensor:
        if not isinstance(storage, _Storage):
            raise ValueError("a tensor without a storage")
        return _Tensor(storage, offset, tuple(size), tuple(stride))

    def _data(self, data: _Tensor, *_: Any) -> _Tensor:
        return data


def read(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Reads every tensor of a file that `torch.save` made of a dictionary, such as a module's `state_dict()`.

    Nested dictionaries are flattened, with names joined by dots; entries that are no tensors are left out. The arrays
    are read-only, share memory if the tensors did, and have the tensors' types (bfloat16 is `jax.numpy.bfloat16`).

    Raises:
      UserError: the file is missing, damaged or not written by `torch.save`, or it holds other objects than tensors,
        dictionaries, lists, numbers and strings.
    """
    path = pathlib.Path(path)
    try:
        with (regular_file(path, "the weights") if path.exists() else path).open("rb") as opened:
            zipped = opened.read(4) == b"PK\x03\x04"
            opened.seek(0)
            content, data, order = (_read_zip if zipped else _read_legacy)(opened, path)
            tensors = _tensors(content, "")
            found = {name: tensor.array(data(tensor.storage.key), order) for name, tensor in tensors.items()}
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or error}).") from error
    except DAMAGED as error:
        reason = str(error) or type(error).__name__
        raise UserError(f"{path} is damaged, or no file of torch.save ({reason}); fetch it again.") from error
    if not found:
        raise UserError(f"{path} holds no tensors by name; save a model's state_dict().")
    return found


def _tensors(content: object, prefix: str) -> dict[str, _Tensor]:
    found: dict[str, _Tensor] = {}
    for name, value in content.items() if isinstance(content, Mapping) else ():
        value = value.data if isinstance(value, _Parameter) else value
        if isinstance(value, _Tensor):
            found[f"{prefix}{name}"] = value
        elif isinstance(value, Mapping):
            found |= _tensors(value, f"{prefix}{name}.")
    return found


# (the pickled object, a function from a storage's key to its bytes, the byte order)
Opened = tuple[object, Callable[[str], bytes], ByteOrder]


def _read_zip(opened: BinaryIO, path: pathlib.Path) -> Opened:
    with zipfile.ZipFile(opened) as archive:
        names = set(archive.namelist())
        root = next((name.removesuffix("data.pkl") for name in names if name.endswith("/data.pkl")), None)
        if root is None:
            raise ValueError("the archive has no data.pkl")
        content = _Unpickler(io.BytesIO(archive.read(f"{root}data.pkl")), path).load()
        big = f"{root}byteorder" in names and archive.read(f"{root}byteorder") == b"big"
        keys = {tensor.storage.key for tensor in _tensors(content, "").values()}
        data = {key: archive.read(f"{root}data/{key}") for key in keys}
    return content, data.__getitem__, ">" if big else "<"


def _read_legacy(opened: BinaryIO, path: pathlib.Path) -> Opened:
    def load() -> Any:
        return _Unpickler(opened, path).load()

    if load() != LEGACY_MAGIC or load() != LEGACY_PROTOCOL:
        raise ValueError("it does not begin as one")
    load()  # the writer's byte order and sizes, which do not matter: the numbers are always little-endian
    unpickler = _Unpickler(opened, path)
    content, data, end = unpickler.load(), {}, os.fstat(opened.fileno()).st_size
    for key in load():
        (count,) = struct.unpack("<q", opened.read(8))
        size = count * unpickler.widths[key]
        if not 0 <= size <= end - opened.tell():
            raise ValueError("it ends before its last tensor")
        data[key] = opened.read(size)
    return content, data.__getitem__, "<"
