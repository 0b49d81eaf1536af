"""Finds the files that --input and its short forms --image, --mask and --hint name."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from etils import epath

from jaxgen.command.flags import Flags
from jaxgen.errors import UserError
from jaxgen.files import user_path

SHORT = ("image", "mask", "hint")


def asked_files(flags: Flags) -> dict[str, tuple[epath.Path, ...]]:
    """Returns `{entry: files}`, where image i has file i; a path that is given without an entry has the entry "".

    The files are not opened. An entry has one file for all images, or as many as every other.

    Raises:
      UserError: a file is missing, a folder has no picture, numbers of files differ, --strength or --degrade has no
        --image, or --legend no picture at all.
    """
    found: dict[str, tuple[epath.Path, ...]] = {}
    for entry, text in _given(flags):
        from jaxgen.files.pictures import picture_files

        flag = spoken(entry)
        found[entry] = (*found.get(entry, ()), *picture_files(user_path(text, flag), flag))
    several = {entry: len(files) for entry, files in found.items() if len(files) > 1}
    if len(set(several.values())) > 1:
        counts = ", ".join(f"{spoken(entry)} {count}" for entry, count in several.items())
        raise UserError(f"image i has file i, but the numbers of files differ: {counts}; give one file, or as many.")
    check_together(flags, found)
    return found


def check_together(flags: Flags, found: Mapping[str, Sequence[epath.Path]]) -> None:
    """Raises a UserError for flags that have no use without a picture, or beside each other; see `asked_files`."""
    if flags.strength is not None and not {"image", ""} & found.keys():
        raise UserError("--strength is the share of an image that may change: give --image=<file or folder> too.")
    if flags.legend and (not found or flags.degrade):
        raise UserError("--legend says which colour of a painted layout is which class: give --mask=<file> too.")
    if flags.degrade and not {"image", ""} & found.keys():
        raise UserError("--degrade is for a clean picture: give --image=<file or folder> too.")
    if flags.degrade and flags.strength is not None:
        raise UserError("--strength is for a picture to begin with, not for one that --degrade changes; leave one out.")


def spoken(entry: str) -> str:
    """Returns the flag that gives an entry, as a user types it."""
    return f"--{entry}" if entry in SHORT else f"--input={entry}" if entry else "--input"


def _given(flags: Flags) -> Iterator[tuple[str, str]]:
    """Yields `(entry, path)` of every flag; what stands before "=" is an entry if it is a plain name."""
    for entry in SHORT:
        for text in getattr(flags, entry):
            yield entry, text
    for text in flags.input:
        named = re.fullmatch(r"([A-Za-z_]\w*)=(.*)", text, re.DOTALL)
        yield (named[1], named[2]) if named else ("", text)
