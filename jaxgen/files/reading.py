"""Reads text and JSON that others wrote: users, other programs, or an earlier run.

Nothing is trusted: the encoding, the syntax, the depth, and the type and range of each value are checked, and what is
wrong is said in one sentence with the file, the place, what was found, and what is needed. What a JSON file must hold
is told by a Python type, which the package `msgspec` checks: `dict[str, float]`, a `TypedDict`, a dataclass, or
`Annotated[int, msgspec.Meta(ge=1)]` for a range.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, NoReturn

import msgspec
from etils import epath

from jaxgen.errors import UserError
from jaxgen.files.paths import regular_file

_WANTED = {
    "int": "a whole number", "float": "a number", "str": "a text", "bool": "true or false", "array": "a list",
    "object": "an object of keys and values", "null": "null",
}  # fmt: skip


def read_text(path: epath.PathLike, named_by: str = "the file") -> str:
    """Returns the text of a file in UTF-8, without the byte-order mark that some editors put at its start.

    Args:
      named_by: what gives the name of the file, for messages.

    Raises:
      UserError: there is no such file, it is a folder, a pipe or a device, or its bytes are not UTF-8; the message
        names the first wrong byte.
    """
    return decode_text(regular_file(path, named_by).read_bytes(), str(path))


def decode_text(data: bytes, where: str) -> str:
    """Returns bytes in UTF-8 as text, without a byte-order mark.

    Args:
      where: the file, for messages.

    Raises:
      UserError: the bytes are not UTF-8.
    """
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        kind = "UTF-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "another encoding"
        raise UserError(
            f"{where} is not text in UTF-8: byte {error.start} (line {line}) is 0x{data[error.start]:02x}, as in "
            f"{kind}; save it as UTF-8."
        ) from error


def text_lines(text: str) -> list[str]:
    """Returns the lines of a text without their ends, which are "\\n" or "\\r\\n" and nothing else.

    `str.splitlines` also splits at form feeds and at U+2028, which a caption may hold. A last line end begins no line.
    """
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    return lines[:-1] if lines[-1] == "" else lines


def read_lines(path: epath.PathLike, flag: str) -> list[str]:
    """Returns the lines of a text file that a flag names, without the blanks around them and without empty lines.

    Raises:
      UserError: the file cannot be read, as in `read_text`, or has no text in it.
    """
    lines = [line.strip() for line in text_lines(read_text(path, flag))]
    if not any(lines):
        raise UserError(f"{flag}={path} has no text in it; write one per line.")
    return [line for line in lines if line]


def parse_json(text: str | bytes, where: str, as_type: Any = Any) -> Any:
    """Returns the value of a JSON text, checked against a type.

    Args:
      where: the file, and the line or entry within it if there is one, for messages.
      as_type: the type that the value must have; entries that a `TypedDict` or a dataclass does not name are allowed
        in the text, and are left out of the result.

    Raises:
      UserError: the text is not JSON, is nested too deeply, or its value is not of the type.
    """
    if isinstance(text, bytes):
        text = decode_text(text, where)
    try:
        value = json.loads(text, parse_int=whole_number)
    except json.JSONDecodeError as error:
        raise UserError(
            f"{where} is not valid JSON: {error.msg} at line {error.lineno}, column {error.colno}; "
            "correct or remove it."
        ) from error
    except RecursionError as error:
        raise UserError(f"{where} is JSON that is nested too deeply to be read; correct or remove it.") from error
    except ValueError as error:  # an integer of more digits than Python reads
        raise UserError(f"{where} holds a number that cannot be read ({error}); correct or remove it.") from error
    if "\\ud" in text or "\\uD" in text:  # the escape of a half of a character, of which two make one
        _check_whole_characters(value, where)
    return as_type_of(value, where, as_type)


def _check_whole_characters(value: Any, where: str) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        half = f"\\u{ord(error.object[error.start]):04x}"
        raise UserError(f"{where} holds {half}, half a character, which UTF-8 does not have; correct it.") from error


def whole_number(digits: str) -> int:
    """Returns a whole number of a JSON text; raises a ValueError for one that is larger than any float."""
    if len(digits) > 308:
        raise ValueError(f"it has {len(digits)} digits")
    return int(digits)


def as_type_of(value: Any, where: str, as_type: Any) -> Any:
    """Returns a value that was parsed from JSON as a type.

    Raises:
      UserError: the value is not of the type; the message names the key, what was found, and what is needed.
    """
    try:
        return msgspec.convert(value, as_type) if as_type is not Any else value
    except msgspec.ValidationError as error:
        _refuse(value, where, str(error), error)
    except RecursionError as error:
        raise UserError(f"{where} is JSON that is nested too deeply to be read; correct or remove it.") from error


def _refuse(value: Any, where: str, message: str, error: Exception) -> NoReturn:
    reason, _, place = message.partition(" - at `")
    parts = re.findall(r"\.([^.\[\]`]+)|\[(\d+|\.\.\.)\]", place)
    name, value = next(_places(value, [key or index for key, index in parts], reason), ("", value))
    subject = f"{name!r} is" if name else "it holds"
    found = json.dumps(value, default=str)
    found = found if len(found) <= 60 else f"{found[:57]}..."
    missing = re.match(r"Object missing required field `(.+)`", reason)
    if missing:
        of = f" in {name!r}" if name else ""
        raise UserError(f"{where}: the entry {missing[1]!r} is missing{of}; restore the file.") from error
    wanted = re.sub(r", got `.*`$", "", reason.removeprefix("Expected "))
    wanted = re.sub(r"`([^`]+)`", lambda word: " or ".join(_WANTED.get(w, w) for w in word[1].split(" | ")), wanted)
    if reason.startswith("Invalid enum value"):
        wanted = "another of a few fixed values"
    raise UserError(f"{where}: {subject} {found}, where {wanted} is needed; correct it.") from error


def _places(value: Any, parts: list[str], reason: str, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yields the name and the value of each place that msgspec may mean: it does not tell the key of an object that may
    have any keys, but writes "...", so that the first entry counts to which its reason applies."""
    if not parts:
        if _applies(reason, value):
            yield name, value
        return
    part, rest = parts[0], parts[1:]
    if isinstance(value, list):
        for index in range(len(value)) if part == "..." else [int(part)]:
            yield from _places(value[index], rest, reason, f"{name}[{index}]")
    elif isinstance(value, dict):
        for key in value if part == "..." else [part]:
            if key in value:
                yield from _places(value[key], rest, reason, f"{name}.{key}".removeprefix("."))


def _applies(reason: str, value: Any) -> bool:
    """Returns whether a reason of msgspec's may be about a value."""
    got = re.search(r", got `(\w+)`", reason)
    if got:
        return _type_of(value) == got[1]
    limit = re.search(r"(>=|<=|>|<) (-?[\d.]+(?:e[+-]?\d+)?)$", reason)
    if not limit:
        return True
    size = len(value) if "length" in reason and isinstance(value, str | list | dict) else value
    if not isinstance(size, int | float):
        return False
    bound = float(limit[2])
    return not {">=": size >= bound, "<=": size <= bound, ">": size > bound, "<": size < bound}[limit[1]]


def _type_of(value: Any) -> str:
    """Returns msgspec's name of a value's type."""
    names = {dict: "object", list: "array", type(None): "null"}
    return names.get(type(value), type(value).__name__)


def read_json(path: epath.PathLike, as_type: Any = dict[str, Any]) -> Any:
    """Reads the value in a JSON file, by default an object.

    Raises:
      UserError: as `read_text` and `parse_json`.
    """
    return parse_json(regular_file(path, "the file").read_bytes(), str(path), as_type)


def read_json_lines(path: epath.PathLike, as_type: Any = dict[str, Any]) -> list[Any]:
    """Reads a file that has one JSON value on each line; empty lines are passed over.

    Raises:
      UserError: as `read_text` and `parse_json`; the message names the line.
    """
    lines = text_lines(read_text(path))
    return [parse_json(line, f"{path}, line {number}", as_type) for number, line in enumerate(lines, 1) if line.strip()]
