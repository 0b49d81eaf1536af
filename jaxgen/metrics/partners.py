"""Finds the partner of each image of a folder in another folder, by the files' names.

Endings do not count, and numbers match with and without leading zeros: `img_1.png` is the partner of `img_01.jpg`.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence

from jaxgen.errors import UserError, some

MEND = "give the partners the same names, or --pairs=order to pair them in the order of their names"


def partners(a: str, first: Sequence[str], b: str, second: Sequence[str]) -> dict[str, str]:
    """Returns for each file of the first folder its partner in the second.

    Args:
      a: the first folder as it was given, for messages; b: the second.
      first: the names of the files of the first folder, below it; second: those of the second.

    Raises:
      UserError: for files without a partner, and names that several files share.
    """
    for key in (_stem, _numbered):  # names that are equal come before names that are alike
        known_a, known_b = _by_key(first, key), _by_key(second, key)
        if known_a.keys() == known_b.keys() and len(known_a) == len(first) and len(known_b) == len(second):
            return {file: known_b[name] for name, file in known_a.items()}
    for name, files in ((a, first), (b, second)):
        _check_single(name, files)
    lonely_a = [file for key, file in known_a.items() if key not in known_b]
    lonely_b = [file for key, file in known_b.items() if key not in known_a]
    told = " and ".join(
        f"{len(files):,} of {len(every):,} files of {name!r} ({some(files)})"
        for name, files, every in ((a, lonely_a, first), (b, lonely_b, second))
        if files
    )
    raise UserError(f"Images are compared in pairs of one name, but {told} have no partner; {MEND}.")


def _stem(file: str) -> str:
    return unicodedata.normalize("NFC", file.rsplit(".", 1)[0])


def _numbered(file: str) -> str:
    return re.sub(r"[0-9]+", lambda digits: digits[0].lstrip("0") or "0", _stem(file))


def _by_key(files: Sequence[str], key: Callable[[str], str]) -> dict[str, str]:
    return {key(file): file for file in files}


def _check_single(name: str, files: Sequence[str]) -> None:
    known: dict[str, str] = {}
    for file in files:
        other = known.setdefault(_numbered(file), file)
        if other != file:
            raise UserError(f"{other!r} and {file!r} of {name!r} have one name, so that pairs are not clear; {MEND}.")
