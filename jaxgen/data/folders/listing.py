"""Finds what is in a folder of images by one walk, and says what of it is not read.

Every folder is walked once, whatever links lead to it: links are followed after all real folders, and one that leads to
a folder which has been walked is left out. Hidden entries are left out, and so are links that lead nowhere and what is
no plain file (a pipe, a device); each is counted.
"""

from __future__ import annotations

import collections
import dataclasses
import os
from collections.abc import Iterable

from etils import epath

from jaxgen.errors import UserError, os_refusal, shown
from jaxgen.files import is_remote
from jaxgen.files.pictures import SUFFIXES

HIDDEN, NOWHERE, AGAIN, NO_FILE = "hidden", "broken link", "link to a folder that is read", "pipe or device"
PLURALS = {NOWHERE: "broken links", AGAIN: "links to folders that are read", NO_FILE: "pipes or devices"}
FRAMES = "with several frames"


@dataclasses.dataclass(frozen=True)
class Listing:
    """Holds what one walk has found; names are relative to the folder, with "/" between their parts.

    Attributes:
      folder: the folder that was walked.
      images: the names of the images, by their endings, sorted.
      others: the names of all other plain files, sorted.
      left_out: the name of every entry that was left out, and why (`HIDDEN`, `NOWHERE`, `AGAIN`, `NO_FILE`).
      folders: the names of the folders directly below, sorted.
    """

    folder: epath.Path
    images: tuple[str, ...]
    others: tuple[str, ...]
    left_out: dict[str, str]
    folders: tuple[str, ...]

    def below(self, prefix: str) -> Listing:
        """Returns the part in the sub-folder `prefix`, with names relative to that."""
        start = f"{prefix}/"

        def part(names: Iterable[str]) -> tuple[str, ...]:
            return tuple(name[len(start) :] for name in names if name.startswith(start))

        left = {name[len(start) :]: why for name, why in self.left_out.items() if name.startswith(start)}
        names = (*part(self.images), *part(self.others))
        folders = tuple(sorted({name.split("/")[0] for name in names if "/" in name}))
        return Listing(self.folder / prefix, part(self.images), part(self.others), left, folders)

    def passed_over(self, read: Iterable[str] = (), frames: Iterable[str] = ()) -> str:
        """Counts what is not read, such as "4 files passed over: .tif"; "" if nothing is.

        Args:
          read: names of `others` that are read, such as captions.
          frames: names of images that are passed over, since they have several frames.
        """
        read, frames = set(read), list(frames)
        counts = collections.Counter(ending(name) for name in self.others if name not in read)
        counts.update(self.left_out.values())
        counts.update({FRAMES: len(frames)} if frames else {})
        total = sum(counts.values())
        if not total:
            return ""
        first = {why: name for name, why in sorted(self.left_out.items(), reverse=True) if why != HIDDEN}
        first.update({FRAMES: frames[0]} if frames else {})
        kinds = [
            (f"{count} " if len(counts) > 1 else "")
            + (PLURALS.get(kind, kind) if count > 1 else kind)
            + (f" ({shown(first[kind])})" if kind in first else "")
            for kind, count in sorted(counts.items(), key=lambda entry: (-entry[1], entry[0]))
        ]
        return f"{total:,} {'file' if total == 1 else 'files'} passed over: {', '.join(kinds)}"


def ending(name: str) -> str:
    """Returns a file's ending in small letters, such as ".tif", or "without ending"."""
    return os.path.splitext(name.rsplit("/", 1)[-1])[1].lower() or "without ending"


def walk(folder: epath.Path) -> Listing:
    """Finds all files below a folder.

    Raises:
      UserError: for a folder that may not be read.
    """
    try:
        found = _remote(folder) if is_remote(folder) else _local(folder)
    except OSError as error:
        raise UserError(f"The folder {os.fspath(folder)!r} cannot be read: {os_refusal(error)}") from error
    files, left_out = found
    images = tuple(sorted(name for name in files if name.lower().endswith(SUFFIXES)))
    taken = set(images)
    others = tuple(sorted(name for name in files if name not in taken))
    folders = tuple(sorted({name.split("/")[0] for name in files if "/" in name}))
    return Listing(folder, images, others, left_out, folders)


def _local(folder: epath.Path) -> tuple[list[str], dict[str, str]]:
    files: list[str] = []
    left_out: dict[str, str] = {}
    walked = {_identity(os.fspath(folder))}
    waiting: list[tuple[str, str]] = [(os.fspath(folder), "")]
    links: list[tuple[str, str]] = []
    while waiting or links:
        if not waiting:  # all real folders before the first link
            path, prefix = links.pop(0)
            if _identity(path) in walked:
                left_out[prefix.rstrip("/")] = AGAIN
                continue
            walked.add(_identity(path))
        else:
            path, prefix = waiting.pop()
        with os.scandir(path) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                name = prefix + entry.name
                kind = _kind(entry)
                if kind == "folder":
                    if entry.is_symlink():
                        links.append((entry.path, f"{name}/"))
                    elif _identity(entry.path) not in walked:
                        walked.add(_identity(entry.path))
                        waiting.append((entry.path, f"{name}/"))
                elif kind == "file":
                    files.append(name)
                else:
                    left_out[name] = kind
    return files, left_out


def _kind(entry: os.DirEntry[str]) -> str:
    """Returns "folder", "file", or why an entry is left out."""
    if entry.name.startswith("."):
        return HIDDEN
    if entry.is_symlink() and not os.path.exists(entry.path):  # also a link to itself
        return NOWHERE
    if entry.is_dir():
        return "folder"
    return "file" if entry.is_file() else NO_FILE


def _identity(path: str) -> tuple[int, int]:
    found = os.stat(path)
    return found.st_dev, found.st_ino


def _remote(folder: epath.Path, prefix: str = "") -> tuple[list[str], dict[str, str]]:
    files: list[str] = []
    left_out: dict[str, str] = {}
    for entry in folder.iterdir():
        if entry.name.startswith("."):
            left_out[prefix + entry.name] = HIDDEN
        elif entry.is_dir():
            inner, left = _remote(entry, f"{prefix}{entry.name}/")
            files += inner
            left_out |= left
        else:
            files.append(prefix + entry.name)
    return files, left_out
