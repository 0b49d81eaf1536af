"""Writes files completely or not at all, and finds out beforehand whether they can be written."""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO

from etils import epath

from jaxgen.errors import UserError, os_refusal
from jaxgen.files.paths import is_remote, regular_file


def write_bytes(path: epath.PathLike, data: bytes) -> None:
    """Writes a file completely or not at all: a killed run leaves the old content, never a part of the new.

    Missing folders are created.
    """
    with whole_file(path) as file:
        file.write(data)


@contextlib.contextmanager
def whole_file(path: epath.PathLike) -> Iterator[BinaryIO]:
    """Opens a file that appears under its name when the block ends without an error, complete; else nothing is left.

    Local files are written under a temporary name in the same folder and renamed; an object store shows an object only
    when it is complete, so it is written directly. Missing folders are created.
    """
    path = epath.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if is_remote(path):
        with path.open("wb") as file:
            yield file
        return
    temporary = path.parent / f".{path.name}.{os.getpid()}.tmp"
    try:
        with temporary.open("wb") as file:
            yield file
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def check_writable(folder: epath.PathLike, flag: str) -> None:
    """Tests whether files can be written into a folder, which need not exist; what the test creates is removed.

    Args:
      flag: the flag that named the folder, for the message.

    Raises:
      UserError: files cannot be written there.
    """
    folder = epath.Path(folder)
    missing = [] if is_remote(folder) else [p for p in (folder, *folder.parents) if not p.exists()]
    probe = folder / f".write_test_{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"0" * 4096)
    except OSError as error:
        raise UserError(f"{flag}={folder}: {os_refusal(error)}") from error
    finally:
        with contextlib.suppress(OSError):
            probe.unlink(missing_ok=True)
        for made in missing:  # the innermost first
            with contextlib.suppress(OSError):
                os.rmdir(made)


def check_free(folder: epath.PathLike, flag: str) -> None:
    """Tests whether files can be written into a folder that is empty or missing; see `check_writable`.

    Raises:
      UserError: files cannot be written there, or it has some.
    """
    check_writable(folder, flag)
    place = epath.Path(folder)
    if place.exists() and any(place.iterdir()):
        raise UserError(f"{flag}={folder} has files already; name a folder that is empty or missing.")


def check_writable_file(path: epath.PathLike, flag: str) -> None:
    """Tests whether one file can be written, as `check_writable` does for a folder.

    Raises:
      UserError: the file cannot be written, or is a folder, a pipe or a device.
    """
    path = epath.Path(path)
    if path.exists():
        regular_file(path, flag)
    check_writable(path.parent, flag)


def strict_json(value: object, indent: int | None = None) -> str:
    """Returns `value` as JSON that every parser reads: NumPy numbers become numbers, NaN and infinities null."""
    return json.dumps(_plain(value), allow_nan=False, indent=indent)


def _plain(value: object) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if hasattr(value, "tolist"):  # numpy and jax scalars and arrays
        return _plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise TypeError(f"{type(value).__name__} cannot be written as JSON: {value!r}")


def write_json(path: epath.PathLike, value: object) -> None:
    """Writes `value` as indented strict JSON, atomically."""
    write_bytes(path, (strict_json(value, indent=2) + "\n").encode())
