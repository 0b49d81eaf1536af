"""Reads `metadata.jsonl`, the table of a folder of images in the form of Hugging Face's `imagefolder`.

Each line is an object that names an image below the table's folder, `file_name`, and says more about it:

    {"file_name": "0001.png", "text": "a red bus", "conditioning_image_file_name": "edges/0001.png", "pose": [0.1, 0.7]}

A table may lie in any folder. Below it, the images are those that it names; class folders mean nothing there. A column
becomes an entry of its own name, except for those of `NAMES`; the ending `_file_name` is left out.
"""

from __future__ import annotations

import dataclasses
import json
import posixpath
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypedDict

import numpy as np

from jaxgen.data.folders.caption_files import Captions
from jaxgen.data.folders.listing import Listing
from jaxgen.data.plain import plain
from jaxgen.errors import UserError, shown, some
from jaxgen.files import parse_json, read_text, text_lines
from jaxgen.files.pictures import SUFFIXES
from jaxgen.files.reading import as_type_of

TABLE = "metadata.jsonl"
FILE = "_file_name"  # the ending of columns that name pictures
STRICT = {"caption": "a text", "label": "a number from 0 on, or always a text,"}  # what is never passed over
NAMES = {"text": "caption", "conditioning_image": "hint"}  # the entries of columns that others call differently


class Line(TypedDict):
    """Describes what every line must have."""

    file_name: str


@dataclasses.dataclass(frozen=True)
class Row:
    """Holds what a line says about an image.

    Attributes:
      where: the table and the line, for messages.
      folder: the table's folder below the whole one, with a slash behind it, or "".
      values: the columns but for `file_name`, by their names in the table.
    """

    where: str
    folder: str
    values: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Metadata:
    """Holds the tables of a folder.

    Attributes:
      listing: the folder's content, with the images that are examples.
      rows: `{image: row}` for the images that a table names.
      tables: the names of the tables.
      classes: the texts of all columns `label`, sorted, if labels are texts.
      notes: what is to be told.
    """

    listing: Listing
    rows: Mapping[str, Row]
    tables: tuple[str, ...]
    classes: tuple[str, ...]
    notes: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Said:
    """Holds what the tables say about some images.

    Attributes:
      arrays: `{entry: [N, ...]}` of numbers and texts.
      pictures: `{entry: files}`, one for each image.
      first: `{entry: file}`, the first picture of each over all images of the folder.
      notes: what is to be told.
    """

    arrays: Mapping[str, np.ndarray]
    pictures: Mapping[str, tuple[str, ...]]
    first: Mapping[str, str]
    notes: tuple[str, ...]


def metadata_of(listing: Listing) -> Metadata | None:
    """Returns what the tables in a folder say, or None where there are none.

    Raises:
      UserError: a line is no JSON or has no `file_name`, names an image that has a line already, or a table names no
        image of its folder.
    """
    tables = tuple(name for name in listing.others if name.rsplit("/", 1)[-1] == TABLE)
    if not tables:
        return None
    images = _by_name(listing)
    rows: dict[str, Row] = {}
    notes = []
    for table in tables:
        path, folder = listing.folder / table, table[: -len(TABLE)]
        strange, before = [], len(rows)
        for where, values in _lines(table, listing):
            name = values.pop("file_name")
            image = images.get(_place(folder, name))
            if image is None:
                strange.append(name or "''")
            elif image in rows:
                raise UserError(f"{where} names {shown(name)}, which {rows[image].where} does already; keep one line.")
            else:
                rows[image] = Row(where, folder, values)
        if strange and len(rows) == before:
            raise UserError(
                f"{str(path)!r} names no image of its folder: it has {some(strange)}; file_name is an image's name "
                "below the table's folder."
            )
        notes += [f"{len(strange):,} lines of {table} name no image: {some(strange)}"] if strange else []
    folders = tuple(table[: -len(TABLE)] for table in tables)
    kept = tuple(name for name in listing.images if name in rows or not name.startswith(folders))
    labels = [row.values["label"] for row in rows.values() if isinstance(row.values.get("label"), str)]
    part = dataclasses.replace(listing, images=kept)
    return Metadata(part, rows, tables, tuple(sorted(set(labels))), tuple(notes))


def _lines(table: str, listing: Listing) -> Iterator[tuple[str, dict[str, Any]]]:
    path = listing.folder / table
    for number, line in enumerate(text_lines(read_text(path)), start=1):
        if line.strip():
            where = f"{path}, line {number}"
            values = parse_json(line, where, dict[str, Any])
            as_type_of(values, where, Line)
            yield where, values


def _by_name(listing: Listing) -> dict[str, str]:
    return {unicodedata.normalize("NFC", name): name for name in listing.images}


def _place(folder: str, name: str) -> str:
    """Returns the name below the whole folder of one that a table in `folder` gives; Windows writes "a\\b.png"."""
    name = name.replace("\\", "/")
    return name if name.startswith("/") else posixpath.normpath(unicodedata.normalize("NFC", folder + name))


def said_of(metadata: Metadata, whole: Listing, files: Sequence[str]) -> Said:
    """Returns what the tables say about the images `files`.

    Args:
      whole: the folder's content, paired pictures among it.

    Raises:
      UserError: a picture or a text is missing for some of the images, a picture is not below the folder, or two
        columns are one entry.
    """
    rows = [metadata.rows[file] for file in files if file in metadata.rows]
    if not rows:
        return Said({}, {}, {}, ())
    if len(rows) < len(files):
        without = [file for file in files if file not in metadata.rows]
        raise UserError(f"{some(without)}: no line of {TABLE} names these images, while others have one; add them.")
    images = _by_name(whole)
    arrays: dict[str, np.ndarray] = {}
    pictures: dict[str, tuple[str, ...]] = {}
    first: dict[str, str] = {}
    left = []
    for column in dict.fromkeys(column for row in rows for column in row.values):
        entry = _entry(column)
        if not entry:
            left.append(f"{column!r} (no name of an entry)")
            continue
        if entry in ("image", *arrays, *pictures):
            raise UserError(f"{rows[0].where}: the column {column!r} and another one are both {entry!r}; rename one.")
        if _of_pictures(column, rows):
            pictures[entry] = tuple(_picture(row, column, entry, images, whole) for row in rows)
            every = [row for row in metadata.rows.values() if column in row.values]
            first[entry] = min(_picture(row, column, entry, images, whole) for row in every)
        elif isinstance(found := _array(entry, column, rows, metadata.classes), str):
            left.append(f"{column} ({found})")
        else:
            arrays[entry] = found
    told = f"{len(left)} {'column' if len(left) == 1 else 'columns'} of {TABLE} passed over: {', '.join(left)}"
    return Said(arrays, pictures, first, (told,) if left else ())


def named_images(listing: Listing, captioned: bool) -> tuple[Listing, Captions | None]:
    """Returns a folder's content with the images that its tables name, and their captions if they have any.

    Args:
      captioned: whether captions are wanted.

    Raises:
      UserError: as `metadata_of` and `said_of` do.
    """
    metadata = metadata_of(listing)
    if metadata is None:
        return listing, None
    said = said_of(metadata, listing, metadata.listing.images) if captioned else Said({}, {}, {}, ())
    texts = [str(text) for text in said.arrays["caption"]] if "caption" in said.arrays else None
    notes = tuple(note for note in (*metadata.notes, unnamed(metadata, listing)) if note)
    return metadata.listing, Captions(texts, metadata.tables, notes)


def with_column(listing: Listing, table: str, column: str, pictures: Mapping[str, str]) -> str:
    """Returns the text of a table with one more column, which names a picture for each image.

    Args:
      listing: the content of the folder.
      table: the table's name below it.
      pictures: `{image: its picture}`, below the folder. Lines of other images stay as they are.

    Raises:
      UserError: the table has a column of this entry already.
    """
    images, above = _by_name(listing), table[: -len(TABLE)]
    lines = []
    for where, values in _lines(table, listing):
        held = next((name for name in values if _entry(name) == _entry(column)), None)
        if held is not None:
            raise UserError(f"{where} has a column {held!r} already; remove it, or give the new one another name.")
        image = images.get(_place(above, values["file_name"]), "")
        if image in pictures:
            values[column] = pictures[image][len(above) :]
        lines.append(f"{json.dumps(values, ensure_ascii=False)}\n")
    return "".join(lines)


def unnamed(metadata: Metadata, whole: Listing) -> str:
    """Returns a note on the pictures that no table names, as images or beside one; "" where there are none."""
    images = _by_name(whole)
    named = {*metadata.listing.images}
    for row in metadata.rows.values():
        named.update(images.get(_place(row.folder, text), "") for text in row.values.values() if isinstance(text, str))
    others = [name for name in whole.images if name not in named]
    return f"{len(others):,} pictures that {TABLE} does not name passed over: {some(others)}" if others else ""


def _entry(column: str) -> str:
    name = column.removesuffix(FILE)
    return NAMES.get(name, name)


def _of_pictures(column: str, rows: Sequence[Row]) -> bool:
    """Returns whether a column names pictures: by its own name, or since one of its texts ends as a picture does."""
    values = [row.values.get(column) for row in rows]
    texts = [value.lower() for value in values if isinstance(value, str)]
    return column.endswith(FILE) or _entry(column) != "caption" and any(text.endswith(SUFFIXES) for text in texts)


def _picture(row: Row, column: str, entry: str, images: Mapping[str, str], whole: Listing) -> str:
    value = row.values.get(column)
    if not isinstance(value, str) or not value:
        raise UserError(f"{row.where} gives no picture for {column!r}, while others do; add it, or remove the line.")
    found = images.get(_place(row.folder, value))
    if found is None:
        raise UserError(
            f"{row.where}: {column}={value!r} is no picture below {str(whole.folder)!r}; restore it, or remove the "
            "line."
        )
    return found


def _array(entry: str, column: str, rows: Sequence[Row], classes: tuple[str, ...]) -> np.ndarray | str:
    """Returns the array of a column, or why there is none."""
    values = [row.values.get(column) for row in rows]
    missing = next((row.where for row, value in zip(rows, values, strict=True) if value in (None, "")), None)
    if missing and entry in STRICT:
        raise UserError(f"{missing} has no {column!r}, while others have; add it, or remove the line.")
    if missing is not None:
        return f"without a value in {missing.rsplit(', ', 1)[-1]}"
    if all(isinstance(value, str) for value in values):
        return np.array([classes.index(value) for value in values], np.int32) if entry == "label" else np.array(values)
    for row, value in zip(rows, values, strict=True) if entry in STRICT else ():
        good = isinstance(value, str) if entry == "caption" else isinstance(value, int) and 0 <= value < 2**31
        if not good:
            raise UserError(f"{row.where}: {column!r} is {value!r}, where {STRICT[entry]} is needed; correct it.")
    return _numbers(column, values)


def _numbers(column: str, values: Sequence[Any]) -> np.ndarray | str:
    try:
        found = np.array(values)
    except ValueError:
        return "lists of several lengths"
    if found.dtype.kind not in "biuf":
        return "neither numbers nor one text each"
    if not found.size:
        return "empty lists"
    if found.dtype.kind == "f" and not np.isfinite(found).all():
        return "values that are not finite"
    try:
        return plain(found, f"the column {column!r}", image_axes=9)
    except UserError:
        return "larger numbers than 32 bits hold"
