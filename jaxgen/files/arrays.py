"""Reads arrays from .npy and .npz files that others wrote; every such file of the project is read here.

Nothing that a file claims is believed: the size that an array's header claims must be the size of what is stored, and
must fit into memory, before anything is allocated. Objects, which are Python's pickles and may run any code, are never
read. Arrays come back in the machine's byte order and in C's order of axes, with the values that they were saved with.
"""

from __future__ import annotations

import dataclasses
import lzma
import math
import os
import pathlib
import tokenize
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import IO

import numpy as np
from etils import epath

from jaxgen.errors import UserError
from jaxgen.files.paths import regular_file
from jaxgen.files.reading import decode_text

CHUNK = 16 * 2**20  # bytes that are read at once
DEFLATE = 1032  # the most that zip's usual compression can shrink
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
KINDS = "biufcUSMm"  # of NumPy's types: numbers, texts and times; no objects and no records
_DAMAGED = (
    OSError, EOFError, ValueError, TypeError, KeyError, SyntaxError, RecursionError, NotImplementedError, RuntimeError,
    tokenize.TokenError, zipfile.BadZipFile, zlib.error, lzma.LZMAError,
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Header:
    """Holds what the header of an array says, checked against what is stored.

    Attributes:
      shape: the array's shape.
      dtype: its type, in the byte order of the file.
      fortran: whether the first axis changes fastest.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    fortran: bool

    @property
    def bytes(self) -> int:
        """Returns how many bytes the array takes."""
        return math.prod(self.shape) * self.dtype.itemsize


class Archive:
    """Opens an .npz file, whose arrays are read by their names; use it in a `with` block.

    Attributes:
      names: the names of the arrays, in the order of the file.
      others: the names of members that are no arrays.
    """

    def __init__(self, path: epath.PathLike, named_by: str = "the file"):
        """Opens a file. Its arrays are not read.

        Args:
          named_by: what gives the name of the file, for messages.

        Raises:
          UserError: there is no such file, or it is no archive of arrays; for encrypted members, two arrays of one
            name, and sizes that cannot be.
        """
        self._where = repr(os.fspath(path))
        self._file = regular_file(path, named_by).open("rb")
        try:
            self._zip = self._opened()
            members = [info for info in self._zip.infolist() if not info.is_dir()]
            self._members = {info.filename.removesuffix(".npy"): info for info in members if _is_array(info)}
            self.names = tuple(self._members)
            self.others = tuple(info.filename for info in members if not _is_array(info))
            for info in members:
                self._check(info)
            if len(self._members) + len(self.others) != len(members):
                raise UserError(f"{self._where} holds two arrays of one name; save it again with numpy.savez.")
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Archive:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def header(self, name: str) -> Header:
        """Returns the header of an array, whose values are not read. Raises as `read`, but for memory."""
        try:
            with self._zip.open(self._members[name]) as member:
                return self._header(name, member)
        except _DAMAGED as error:
            raise self._broken(name, error) from error

    def read(self, name: str) -> np.ndarray:
        """Returns an array.

        Raises:
          UserError: the array is damaged, holds objects or records, or does not fit into memory.
        """
        try:
            with self._zip.open(self._members[name]) as member:
                header = self._header(name, member)
                check_memory(header.bytes, f"{name!r} of {self._where}")
                return _values(member, header)
        except _DAMAGED as error:
            raise self._broken(name, error) from error

    def read_all(self) -> dict[str, np.ndarray]:
        """Returns all arrays by their names. Raises as `read`."""
        check_memory(sum(self.header(name).bytes for name in self.names), self._where)
        return {name: self.read(name) for name in self.names}

    def rows(self, name: str, parts: Iterable[Sequence[int] | np.ndarray]) -> Iterator[np.ndarray]:
        """Yields rows of an array part by part, in one pass over the file.

        The array need not fit into memory, unless it is in Fortran's order.

        Args:
          parts: the numbers of rows, which rise over all parts.

        Raises:
          UserError: as `read`.
        """
        try:
            with self._zip.open(self._members[name]) as member:
                header = self._header(name, member)
                if header.fortran and len(header.shape) > 1:  # its rows are not together
                    whole = self.read(name)
                    yield from (whole[np.asarray(part)] for part in parts)
                    return
                row, at = math.prod(header.shape[1:]) * header.dtype.itemsize, 0
                for part in parts:
                    found = bytearray()
                    for wanted in part:
                        while at <= wanted:  # compressed members cannot be jumped in
                            data = _exactly(member, row)
                            at += 1
                        found += data
                    rows = np.frombuffer(found, header.dtype).reshape(len(part), *header.shape[1:])
                    yield rows.astype(header.dtype.newbyteorder("="), copy=False)
        except _DAMAGED as error:
            raise self._broken(name, error) from error

    def _opened(self) -> zipfile.ZipFile:
        start = self._file.read(6)
        self._file.seek(0)
        if start == b"\x93NUMPY":
            raise UserError(f"{self._where} is a single array; save it with numpy.savez(images=...).")
        try:
            return zipfile.ZipFile(self._file)
        except _DAMAGED as error:
            raise UserError(
                f"{self._where} cannot be read as an .npz archive ({_brief(error)}); save it again with numpy.savez."
            ) from error

    def _check(self, info: zipfile.ZipInfo) -> None:
        """Raises a UserError for a member that cannot be read, or whose claimed size cannot be true."""
        name = info.filename
        if info.flag_bits & 1:
            raise UserError(f"{name!r} of {self._where} is encrypted; save it again with numpy.savez.")
        if info.compress_type not in METHODS:
            raise UserError(
                f"{name!r} of {self._where} is compressed by a method that is not read ({info.compress_type}); save "
                "it again with numpy.savez."
            )
        most = {zipfile.ZIP_STORED: info.compress_size, zipfile.ZIP_DEFLATED: DEFLATE * info.compress_size + 64}
        if info.file_size > most.get(info.compress_type, info.file_size):
            raise UserError(
                f"{name!r} of {self._where} claims {info.file_size:,} bytes, which {info.compress_size:,} stored bytes "
                "cannot hold: it is damaged; save it again."
            )

    def _header(self, name: str, member: IO[bytes]) -> Header:
        return _header(member, self._members[name].file_size, f"{name!r} of {self._where}")

    def _broken(self, name: str, error: Exception) -> UserError:
        return UserError(
            f"{self._where} cannot be read as an .npz archive of arrays, since {name!r} is damaged ({_brief(error)}); "
            "save it again with numpy.savez."
        )


def read_npz(path: epath.PathLike, named_by: str = "the file") -> dict[str, np.ndarray]:
    """Returns all arrays of an .npz file by their names. Raises a UserError as `Archive`."""
    with Archive(path, named_by) as archive:
        return archive.read_all()


def read_npy(path: epath.PathLike, named_by: str = "the file") -> np.ndarray:
    """Returns the array of an .npy file.

    Raises:
      UserError: there is no such file, it is an .npz archive or no array, damaged, holds objects or records, or does
        not fit into memory.
    """
    path = regular_file(path, named_by)
    where = repr(os.fspath(path))
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        if file.read(2) == b"PK":
            raise UserError(f"{where} is an archive of several arrays; save one of them with numpy.save.")
        file.seek(0)
        try:
            header = _header(file, size, where)
            check_memory(header.bytes, where)
            return _values(file, header)
        except _DAMAGED as error:
            raise UserError(
                f"{where} cannot be read as an .npy file of numbers ({_brief(error)}); save it again with numpy.save."
            ) from error


def texts(values: np.ndarray, where: str) -> np.ndarray:
    """Returns an array of texts as Python's texts; bytes are UTF-8, with or without a byte-order mark.

    Args:
      where: what the array is called in messages.

    Raises:
      UserError: for what is no text.
    """
    if values.dtype.kind == "S":
        flat = [decode_text(bytes(entry), f"{where}, entry {i}") for i, entry in enumerate(values.ravel())]
        return np.array(flat, np.str_).reshape(values.shape)
    if values.dtype.kind != "U":
        raise UserError(f"{where} is {values.dtype}, where texts are needed.")
    if values.size and values.dtype.itemsize:
        points = np.ascontiguousarray(values).view(np.uint32)
        if ((points > 0x10FFFF) | (points >= 0xD800) & (points < 0xE000)).any():
            raise UserError(f"{where} holds characters that no text has; save it again from Python's texts.")
    return values


def check_memory(size: int, what: str) -> None:
    """Raises a UserError where `size` bytes are more than the memory that is free."""
    free = free_memory()
    if size > free:
        raise UserError(
            f"{what} takes {size / 2**30:,.1f} GiB of memory, of which {free / 2**30:,.1f} GiB are free; make it "
            "smaller, or use a machine with more memory."
        )


def free_memory() -> int:
    """Returns how many bytes of memory can still be taken here, as far as the system tells."""
    found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    try:
        lines = pathlib.Path("/proc/meminfo").read_text().splitlines()
        found += [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
        group = pathlib.Path("/sys/fs/cgroup")
        most = (group / "memory.max").read_text().strip()
        taken = dict(line.split()[:2] for line in (group / "memory.stat").read_text().splitlines())
        found += [max(int(most) - int(taken["anon"]), 0)] if most != "max" else []
    except OSError:  # another system than Linux, or no limit
        return min(found)
    return min(found)


def _is_array(info: zipfile.ZipInfo) -> bool:
    return info.filename.endswith(".npy")


def _header(file: IO[bytes], size: int, where: str) -> Header:
    """Reads a header and leaves the file at the first value; `size` is that of header and values together."""
    version = np.lib.format.read_magic(file)  # type: ignore[no-untyped-call]
    if version not in ((1, 0), (2, 0)):
        raise UserError(f"{where} is an array of records, which is not read; save plain arrays of numbers.")
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(file)  # type: ignore[no-untyped-call]
    header = Header(tuple(int(side) for side in shape), dtype, fortran)
    if dtype.kind not in KINDS or dtype.itemsize == 0:
        kind = "Python objects" if dtype.hasobject else "records"
        raise UserError(f"{where} holds {kind} ({dtype}), and no objects are read; save plain arrays of numbers.")
    if any(side < 0 for side in header.shape):
        raise ValueError(f"its header claims the shape {header.shape}")
    if header.bytes != size - file.tell():
        raise ValueError(
            f"its header claims {header.bytes:,} bytes, {dtype} {list(header.shape)}, where "
            f"{size - file.tell():,} are stored"
        )
    return header


def _values(file: IO[bytes], header: Header) -> np.ndarray:
    """Reads the values that follow a header."""
    flat = np.empty(header.bytes, np.uint8)
    for start in range(0, header.bytes, CHUNK):
        part = flat[start : start + CHUNK]
        part[:] = np.frombuffer(_exactly(file, len(part)), np.uint8)
    if file.read(1):
        raise ValueError("it holds more than its header claims")
    values = flat.view(header.dtype).reshape(header.shape, order="F" if header.fortran else "C")
    return np.ascontiguousarray(values.astype(header.dtype.newbyteorder("="), copy=False)).reshape(header.shape)


def _exactly(file: IO[bytes], count: int) -> bytes:
    found = file.read(count)
    while len(found) < count:
        more = file.read(count - len(found))
        if not more:
            raise EOFError("it ends too early")
        found += more
    return found


def _brief(error: Exception) -> str:
    return str(error).split("\n")[0].strip().rstrip(".")[:200] or type(error).__name__
