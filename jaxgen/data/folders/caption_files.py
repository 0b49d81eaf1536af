"""Reads the captions of a folder's images from a table `captions.jsonl`, or from a .txt beside each image.

Each line of the table is {"file": "<name below the table's folder>", "caption": "..."}. The table is in the folder of
the data, or in the folder of a split.
"""

from __future__ import annotations

import dataclasses
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypedDict, TypeVar

from etils import epath

from jaxgen.data.folders.listing import Listing
from jaxgen.errors import UserError, shown, some
from jaxgen.files import parse_json, read_text, text_lines

TABLE = "captions.jsonl"
THREADS = 16
X = TypeVar("X")
Y = TypeVar("Y")


class Line(TypedDict):
    """Describes a line of the table."""

    file: str
    caption: str


@dataclasses.dataclass(frozen=True)
class Captions:
    """Holds the captions of some images.

    Attributes:
      texts: one per image in the order of the images, or None where there are none.
      read: the names of the files that hold them.
      notes: what is to be told about them.
    """

    texts: list[str] | None
    read: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def captions_of(listing: Listing, files: Sequence[str], prefix: str = "") -> Captions:
    """Returns the captions of some of a folder's images.

    Args:
      listing: the folder's content.
      files: names of images in `listing`.
      prefix: the split's folder and a slash, or "".

    Raises:
      UserError: where some of the images have a caption and others have none; for two tables, a table that names none
        of the images or one image twice, and what is no table.
    """
    tables = [name for name in dict.fromkeys((TABLE, prefix + TABLE)) if name in listing.others]
    if len(tables) > 1:
        raise UserError(
            f"There are two tables of captions, {str(listing.folder / tables[0])!r} and "
            f"{str(listing.folder / tables[1])!r}; keep one of them."
        )
    if tables:
        known, notes = _of_table(listing, tables[0])
        read: tuple[str, ...] = tuple(tables)
        suggestion = f"add it to {str(listing.folder / tables[0])!r}"
    else:
        present = set(listing.others)
        beside = {file: file.rsplit(".", 1)[0] + ".txt" for file in listing.images}
        read, notes = tuple(text for text in beside.values() if text in present), ()
        texts = {file: beside[file] for file in files if beside[file] in present}
        found = in_threads(lambda name: read_text(listing.folder / name).strip(), list(texts.values()))
        known = dict(zip(texts, found, strict=True))
        suggestion = "write a .txt beside it"
    if not any(file in known for file in files):
        return Captions(None, read, notes)
    for file in files:
        if not known.get(file):
            raise UserError(f"{str(listing.folder / file)!r} has no caption while others have; {suggestion}.")
    return Captions([known[file] for file in files], read, notes)


def _of_table(listing: Listing, table: str) -> tuple[dict[str, str], tuple[str, ...]]:
    """Returns the captions of a table by the names of their images, and what is to be told."""
    path, folder = listing.folder / table, table[: -len(TABLE)]
    images = {unicodedata.normalize("NFC", name): name for name in listing.images}  # macOS writes é as two characters
    known: dict[str, str] = {}
    strange = []
    for number, file, caption in _lines(path):
        image = images.get(unicodedata.normalize("NFC", folder + file))
        if image is None:
            strange.append(file)
        elif image in known:
            raise UserError(f"Line {number} of {str(path)!r} gives {shown(file)} a second caption; keep one of them.")
        else:
            known[image] = caption
    if strange and not known:
        wanted = next((name[len(folder) :] for name in listing.images if name.startswith(folder)), "a.png")
        raise UserError(
            f"{str(path)!r} names no image of its folder: it has {some(strange)}, where an image's name below "
            f"the folder is needed, such as {shown(wanted)}."
        )
    notes = (f"{len(strange):,} captions name no image: {some(strange)}",) if strange else ()
    return known, notes


def _lines(table: epath.Path) -> Iterator[tuple[int, str, str]]:
    for number, line in enumerate(text_lines(read_text(table)), start=1):
        if line.strip():
            entry = parse_json(line, f"{table}, line {number}", Line)
            yield number, entry["file"], entry["caption"]


def in_threads(function: Callable[[X], Y], items: Iterable[X]) -> list[Y]:
    """Returns `[function(item) for item in items]`, made by several threads."""
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(function, items))
