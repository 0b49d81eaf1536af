"""Writes the files of a work folder, each completely or not at all, and reads them back.

`metrics.jsonl` has one JSON object on each line: `step` (int), `images` (training images seen so far), `seconds`
(of training so far), then numbers called `<turn>/<name>`. A number that was not finite is written as null.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Mapping
from typing import Any

from etils import epath

from jaxgen.errors import UserError, os_refusal


def is_remote(path: epath.PathLike) -> bool:
    """Returns whether a path is in an object store (`gs://...`), which can neither rename nor append."""
    return "://" in os.fspath(path)


def inside(folder: epath.PathLike, name: Any, named_by: epath.PathLike = "") -> epath.Path:
    """Returns the path of a name that is given by a file, not by the user; it must not lead out of the folder.

    Links are followed before the check, `gs://` paths are checked by their text. In Hugging Face's cache, whose folders
    hold links into one folder `blobs`, that folder is accepted too.

    Args:
      named_by: the file that gives the name, if one file does.

    Raises:
      UserError: the name leads out of the folder, or is not text.
    """
    folder, giver = epath.Path(folder), named_by or folder
    if not isinstance(name, str) or not name or "\0" in name:
        raise UserError(f"{giver} gives {name!r} where the name of a file is needed; correct or remove the file.")
    path = folder / name
    if is_remote(folder):
        target, within = os.fspath(path), ".." not in name.split("/") and not name.startswith("/")
    else:
        target, blobs = _followed(path), os.path.dirname(_followed(named_by)) if named_by else ""
        roots = [_followed(folder), *([blobs] if os.path.basename(blobs) == "blobs" else [])]
        within = any(os.path.commonpath([root, target]) == root for root in roots)
    if not within or is_remote(name):
        raise UserError(
            f"{giver} names {name!r}, which leads to {target}, outside of its folder, and is not read; remove the "
            "entry, or copy the file into the folder."
        )
    return path


def _followed(path: epath.PathLike) -> str:
    try:
        return os.path.realpath(os.fspath(path))
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        raise UserError(f"{os.fspath(path)!r} cannot be the name of a file ({error}).") from error


def write_bytes(path: epath.PathLike, data: bytes) -> None:
    """Writes a file completely or not at all: a killed run leaves the old content, never a part of the new.

    Local files are written under a temporary name in the same folder and renamed; an object store shows
    an object only when it is complete, so it is written directly. Missing folders are created.
    """
    path = epath.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if is_remote(path):
        path.write_bytes(data)
        return
    temporary = path.parent / f".{path.name}.{os.getpid()}.tmp"
    try:
        temporary.write_bytes(data)
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
                made.rmdir()


def check_writable_file(path: epath.PathLike, flag: str) -> None:
    """Tests whether one file can be written, as `check_writable` does for a folder.

    Raises:
      UserError: the file cannot be written, or is a folder.
    """
    path = epath.Path(path)
    if path.is_dir():
        raise UserError(f"{flag}={path} is a folder; name a file.")
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


def read_json(path: epath.PathLike) -> dict[str, Any]:
    """Reads the object in a JSON file.

    Raises:
      UserError: the file is not JSON, or not an object; the message names the file and, where known, the line.
    """
    try:
        value = json.loads(epath.Path(path).read_bytes())
    except json.JSONDecodeError as error:
        raise UserError(
            f"{path}, line {error.lineno}: not valid JSON ({error.msg}); correct or remove it."
        ) from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not a text file in UTF-8; correct or remove it.") from error
    if not isinstance(value, dict):
        raise UserError(f"{path}: expected a JSON object at the top, found {type(value).__name__}.")
    return value


def metric_lines(path: epath.PathLike) -> list[tuple[bytes, dict[str, Any]]]:
    """Reads every complete line of a `metrics.jsonl` as (its bytes without the newline, its content), in order.

    An incomplete last line, which a killed run leaves (no newline at its end, and not JSON), is left out.

    Raises:
      UserError: any other line is not what `metrics.jsonl` holds; the message names the file and the line.
    """
    lines = epath.Path(path).read_bytes().split(b"\n")
    found = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line, parse_constant=lambda _: None)
        except ValueError as error:  # JSONDecodeError and UnicodeDecodeError are both ValueErrors
            if number == len(lines):  # what follows the last newline
                break
            raise UserError(
                f"{path}, line {number}: not valid JSON ({error}); correct or remove that line."
            ) from error
        problem = _row_problem(row)
        if problem:
            raise UserError(f"{path}, line {number}: {problem}; correct or remove that line.")
        found.append((line, row))
    return found


def _row_problem(row: object) -> str | None:
    if not isinstance(row, dict):
        return "expected a JSON object"
    for key in ("step", "images", "seconds"):
        if not _is_number(row.get(key)):
            return f"{key!r} must be a number, found {row.get(key)!r}"
    for key, value in row.items():
        if key != "nonfinite" and value is not None and not _is_number(value):
            return f"{key!r} must be a number or null, found {value!r}"
    return None


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def read_metrics(path: epath.PathLike) -> list[dict[str, float | None]]:
    """Reads the history in a `metrics.jsonl` as one dict for each step, in the order of the steps.

    A step that occurs more than once (a run was stopped after its last checkpoint and resumed) keeps the
    last value of each number.

    Raises:
      UserError: as `metric_lines`.
    """
    steps: dict[float, dict[str, float | None]] = {}
    for _, row in metric_lines(path):
        row.pop("nonfinite", None)  # those are the nulls
        steps[row["step"]] = {**steps.get(row["step"], {}), **row}
    return [steps[step] for step in sorted(steps)]
