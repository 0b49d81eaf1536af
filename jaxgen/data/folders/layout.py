"""Understands a folder of images: as one set, or with sub-folders that are classes or splits.

Where a folder may be meant in two ways a sentence names both, and the source's text chooses: `folder:photos:classes` or
`folder:photos:splits`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from jaxgen.data.folders.listing import Listing
from jaxgen.data.source import check_split, hash_split
from jaxgen.errors import UserError, some

SPLITS = ("train", "test", "val", "validation")
SPLIT_LIKE = frozenset({*SPLITS, "training", "testing", "valid", "dev", "eval"})  # in small letters
CHOICES = ("classes", "splits")


@dataclasses.dataclass(frozen=True)
class Layout:
    """Says how a folder is meant.

    Attributes:
      prefix: the split's folder and a slash, or "".
      files: the names of the split's images below the whole folder, sorted.
      classes: the names of the classes, sorted; () without.
      everything: how many images all splits have together.
      notes: what is to be told.
    """

    prefix: str
    files: tuple[str, ...]
    classes: tuple[str, ...]
    everything: int
    notes: tuple[str, ...] = ()

    def label(self, file: str) -> int:
        """Returns the number of a file's class."""
        return self.classes.index(file[len(self.prefix) :].split("/")[0])


def layout_of(name: str, listing: Listing, split: str, choice: str = "") -> Layout:
    """Understands a folder.

    Args:
      name: the source's text, for messages.
      split: the split that is asked for.
      choice: "classes" or "splits" where the user says which, or "".

    Raises:
      UserError: for a folder that may be meant in two ways, and a split that there is not.
    """
    folders = sorted({file.split("/")[0] for file in listing.images if "/" in file})
    marked = [word for word in SPLITS if word in listing.folders]
    asked = [split] if split in folders and split not in ("all", "train", "test") else []
    like = [word for word in folders if word.lower() in SPLIT_LIKE]
    if choice == "classes" or not choice and not (marked or asked or like):
        return _one_set(name, listing, split, folders, choice)
    known = folders if choice else list(dict.fromkeys([*marked, *asked]))
    if set(folders) - set(known):
        raise _ambiguous(name, folders, [word for word in folders if word in known or word in like])
    return _splits(name, listing, split, known)


def _ambiguous(name: str, folders: Sequence[str], splits: Sequence[str]) -> UserError:
    others = [word for word in folders if word not in splits]
    beside = f" beside {some(others)}" if others else ""
    return UserError(
        f"{name!r} has folders named like splits ({some(splits)}){beside}, and may be meant in two ways: as "
        f"{len(folders)} classes, then write '{name}:classes'; or with each folder as a split, then write "
        f"'{name}:splits' (config.data.source)."
    )


def _one_set(name: str, listing: Listing, split: str, folders: Sequence[str], choice: str) -> Layout:
    """Reads a folder without split folders, which has `all`, and `train` and `test` by a hash of each name."""
    check_split(name, split, ("all", "train", "test"))
    above = [file for file in listing.images if "/" not in file]
    nested = [file for file in listing.images if any(p.lower() in SPLIT_LIKE for p in file.split("/")[1:-1])]
    if nested and not choice:
        raise UserError(
            f"{name!r} has folders named like splits within its folders ({some(nested, 1)}), so that it is not clear "
            f"what is a class: name the folder that the splits are in, or write '{name}:classes' if "
            f"{some(folders)} are classes with all that is below them (config.data.source)."
        )
    if above and choice:
        raise UserError(
            f"{name!r} has images that are in no class folder, {some(above)}; move them into class folders."
        )
    files = tuple(file for file in listing.images if split in ("all", hash_split(file)))
    notes = _unlabelled(above, folders)
    if split != "all":
        notes += (f"{len(files):,} of {len(listing.images):,} images, split by a hash of their names",)
    return Layout("", files, () if above else tuple(folders), len(listing.images), notes)


def _splits(name: str, listing: Listing, split: str, known: Sequence[str]) -> Layout:
    """Reads a folder of splits. All are looked at: a class that one lacks must not shift the others' numbers."""
    check_split(name, split, known)
    deep = sorted({file.split("/")[1] for file in listing.images if file.count("/") > 1})
    above = [file for file in listing.images if file.count("/") == 1]
    stray = [file for file in listing.images if "/" not in file]
    notes = _unlabelled(above, deep)
    if stray:
        notes += (f"{len(stray):,} above the folders of the splits passed over: {some(stray)}",)
    files = tuple(file for file in listing.images if file.startswith(f"{split}/"))
    return Layout(f"{split}/", files, () if above else tuple(deep), len(listing.images), notes)


def _unlabelled(above: Sequence[str], folders: Sequence[str]) -> tuple[str, ...]:
    """Returns a note where sub-folders would be classes, if no image lay above them."""
    if not above or not folders:
        return ()
    verb = "is" if len(above) == 1 else "are"
    return (f"no classes, since {some(above)} {verb} above the folders {some(folders)}",)
