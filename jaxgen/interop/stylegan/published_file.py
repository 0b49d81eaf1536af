"""Reads the arrays of a network from a pickle that NVIDIA's StyleGAN2-ADA code wrote, and runs nothing that it names.

Such a file describes modules by the source of their classes, which the authors' code executes. Here a module is a
record of its parameters, buffers and parts, its source is left alone, and every name is refused that tensors and these
records do not need. Pickles of the older TensorFlow code are refused for that reason: they are converted by the
authors' `legacy.py` in an environment of the user's own.
"""

from __future__ import annotations

import collections
import io
import os
import pathlib
import pickle
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxgen.errors import UserError
from jaxgen.files import regular_file
from jaxgen.interop.torch_file import DAMAGED, LEGACY_MAGIC, LEGACY_PROTOCOL, STORAGES, strided


class _Record:
    """Stands for an object whose values are of no use here, such as a NumPy scalar."""

    def __setstate__(self, state: Any) -> None:
        pass


class _Module(_Record):
    """Holds the state of a network or of a part of it."""

    def __init__(self, state: Mapping[str, Any]):
        self.state = state


class _Storage(pickle._Unpickler):
    """Reads the type of a storage that `torch.save` wrote, and refuses every name that is no such type."""

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and name in STORAGES:
            return name
        raise UserError(f"a tensor asks for {module}.{name}, which plain tensors do not need, so it is not read.")

    def persistent_load(self, entry: tuple) -> np.dtype:
        kind, storage, *_ = entry
        if kind != "storage":
            raise ValueError(f"{kind!r} is no storage")
        return np.dtype(STORAGES[storage])


class _Networks(pickle._Unpickler):  # the one in C takes gigabytes where a damaged byte asks for them
    """Makes dictionaries, numbers, strings, arrays and `_Module`s, and refuses every other name."""

    def __init__(self, file: io.BufferedIOBase, path: pathlib.Path):
        super().__init__(file, encoding="utf-8")
        self._path = path

    def find_class(self, module: str, name: str) -> Any:
        known: Mapping[tuple[str, str], Any] = {
            ("collections", "OrderedDict"): collections.OrderedDict,
            ("builtins", "set"): set,
            ("__builtin__", "set"): set,
            ("dnnlib.util", "EasyDict"): dict,
            ("torch_utils.persistence", "_reconstruct_persistent_obj"): self._module,
            ("torch._utils", "_rebuild_tensor_v2"): self._tensor,
            ("torch._utils", "_rebuild_parameter"): self._parameter,
            ("torch.storage", "_load_from_bytes"): self._numbers,
            ("numpy", "dtype"): self._ignored,
            ("numpy.core.multiarray", "scalar"): self._ignored,
            ("numpy._core.multiarray", "scalar"): self._ignored,
        }
        if (module, name) in known:
            return known[module, name]
        raise UserError(
            f"{self._path} asks for {module}.{name}, which a network of StyleGAN2-ADA for PyTorch does not need; "
            "nothing of it is run, and the file is not read."
        )

    def _ignored(self, *_: Any) -> _Record:
        return _Record()

    def _module(self, meta: Mapping[str, Any]) -> _Module:
        return _Module(meta["state"])

    def _parameter(self, data: np.ndarray, *_: Any) -> np.ndarray:
        return data

    def _numbers(self, data: bytes) -> np.ndarray:
        opened = io.BytesIO(data)
        if _Storage(opened).load() != LEGACY_MAGIC or _Storage(opened).load() != LEGACY_PROTOCOL:
            raise ValueError("a tensor's numbers do not begin as those of torch.save")
        _Storage(opened).load()  # the writer's byte order and sizes: the numbers are always little-endian
        dtype = _Storage(opened).load()
        _Storage(opened).load()  # the storage's key
        (count,) = struct.unpack("<q", opened.read(8))
        return np.frombuffer(opened.read(), dtype, count)

    def _tensor(self, numbers: np.ndarray, offset: int, size: tuple, stride: tuple, *_: Any) -> np.ndarray:
        return np.ascontiguousarray(strided(numbers, offset, size, stride)).reshape(size)


def read(path: str | os.PathLike[str], network: str = "G_ema") -> dict[str, np.ndarray]:
    """Returns the parameters and buffers of a network by their published names, such as `synthesis.b4.const`.

    Args:
      path: a pickle of StyleGAN2-ADA for PyTorch.
      network: `G_ema`, the averaged generator; `G`; or `D`.

    Raises:
      UserError: the file is missing or damaged, has no such network, or asks for anything but what networks need.
    """
    path = pathlib.Path(path)
    try:
        with (regular_file(path, "the weights") if path.exists() else path).open("rb") as opened:
            content = _Networks(opened, path).load()
        if not isinstance(content, Mapping):
            raise ValueError("it holds no networks by name")
        networks = {name: value for name, value in content.items() if isinstance(value, _Module)}
        if network in networks:
            return _arrays(networks[network], "")
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or error}).") from error
    except DAMAGED as error:
        reason = str(error) or type(error).__name__
        raise UserError(f"{path} is damaged, or no file of StyleGAN2-ADA ({reason}); fetch it again.") from error
    raise UserError(f"{path} has no network {network!r}; it has {', '.join(map(repr, networks)) or 'none'}.")


def _arrays(module: _Module, prefix: str) -> dict[str, np.ndarray]:
    found = {
        f"{prefix}{name}": value
        for part in ("_parameters", "_buffers")
        for name, value in module.state.get(part, {}).items()
        if isinstance(value, np.ndarray)
    }
    for name, value in module.state.get("_modules", {}).items():
        if isinstance(value, _Module):
            found |= _arrays(value, f"{prefix}{name}.")
    return found
