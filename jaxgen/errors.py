"""Holds the one error that users see, a sentence on what is wrong and how to correct it, and helpers to write it."""

from __future__ import annotations

import difflib
import errno
import re
from collections.abc import Iterable


class UserError(Exception):
    """This error is raised for bad input. Its message is one sentence; a command prints it and exits with status 2."""


def printable(text: str) -> str:
    """Returns a sentence as one line that a terminal can show.

    Control characters and halves of characters, which names in files may have, are written as escapes, and what is too
    long to be read loses its middle.
    """
    text = re.sub(r"\S{1000,}", lambda word: f"{word[0][:300]}...{word[0][-100:]}", text.strip().replace("\n", " "))
    text = text if len(text) <= 4000 else f"{text[:3000]} ... {text[-500:]}"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def first_line(error: BaseException) -> str:
    """Returns the type and the first line of another library's error, for use within a sentence."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__


def os_refusal(error: OSError) -> str:
    """Returns an operating system's refusal as one sentence, with the file and what to do."""
    where = f" ({error.filename})" if error.filename else ""
    sentences = {
        errno.ENOSPC: "the disk is full; free some space and give the same command again",
        errno.EDQUOT: "the disk quota is used up; free some space and give the same command again",
        errno.EFBIG: "a file would be larger than is allowed here; raise the limit or use another disk",
        errno.EROFS: "the disk is read-only; choose another folder",
        errno.EACCES: "permission denied; change the permissions, or choose another file or folder",
        errno.EPERM: "not permitted; choose another file or folder",
        errno.ENOENT: "there is no such file or folder",
        errno.EISDIR: "it is a folder; name a file",
        errno.ENOTDIR: "a part of the path is a file; choose another folder",
        errno.EEXIST: "it is a file; choose another folder",
    }
    return f"{sentences.get(error.errno or 0, error.strerror or str(error))}{where}."


def check_entry_name(name: str, section: str) -> None:
    """Checks a name that a user has chosen for an entry of a section: it becomes part of paths, files and flags.

    Raises:
      UserError: it has other characters than letters, digits, "_" and "-", or none.
    """
    if not re.fullmatch(r"\w[\w-]*", name):
        raise UserError(f"{section} has an entry called {name!r}; a name has letters, digits, '_' and '-' alone.")


def shown(name: str) -> str:
    """Returns a file's name as it can be printed: bytes that are no text, and line breaks, are written as escapes."""
    return name if name.isprintable() else repr(name)[1:-1]


def some(names: Iterable[str], most: int = 3) -> str:
    """Returns the first names of several, such as "a.png, b.png, c.png and 7 more"."""
    names = list(names)
    rest = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(shown(name) for name in names[:most]) + rest


def nearest(name: str, known: Iterable[str]) -> str:
    """Returns a text to append to "unknown <name>": the known name that is most similar, or else all known names."""
    known = sorted(known)
    close = difflib.get_close_matches(str(name), known, n=1, cutoff=0.5)
    if close:
        return f"did you mean {close[0]!r}?"
    if not known:
        return "there are none."
    return "known are: " + ", ".join(known) + "."
