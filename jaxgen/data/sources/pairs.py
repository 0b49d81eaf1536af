"""`pairs:<folder>` is a folder of images and of pictures that belong to them, for models that read a picture.

Either the pictures of each entry are in a folder of its name, and those of one example have one name up to its ending:

    photos/train/image/0001.jpg     photos/train/condition/0001.png     (and hint/, style/, ... where there are more)

Or each file shows both, side by side, as the data sets of pix2pix do: `pairs:<folder>:left` takes the left half for the
image and the right one for the condition, `pairs:<folder>:right` the other way round.

Splits: `<folder>/<split>/...` where there are such folders, else `all`, and `train` and `test` by a hash of the name.

An example has `image` and the other entries, uint8 [H, W, C], each with the channels that its first picture has; a
folder `mask` holds numbers of classes, and a folder `instance` numbers of objects, as grey levels or indices of a
palette; they become int32 [H, W]. Captions are as in `folder:<path>`, beside the images.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence

import numpy as np
from etils import epath

from jaxgen.data.folders.caption_files import captions_of
from jaxgen.data.folders.columns import MAPS, Column, Columns, column
from jaxgen.data.folders.layout import SPLIT_LIKE, Layout, layout_of
from jaxgen.data.folders.listing import Listing, walk
from jaxgen.data.images import fit, load, upright_size
from jaxgen.data.source import Example, Examples, Request, Source, check_split, hash_split
from jaxgen.data.sources.folder import Folder, chosen
from jaxgen.errors import UserError, shown, some
from jaxgen.files import folder
from jaxgen.files.pictures import open_image

HALVES = ("left", "right")
Places = Mapping[str, Mapping[str, Sequence[str]]]  # {split: {entry: files}}
TAKEN = ("label", "tokens", "caption", "attributes")  # entries that are no pictures


class Pairs(Source):
    """Gives images with the pictures that belong to them.

    Raises:
      UserError: the folder has neither layout, a picture has no partner of its name or one of another shape, or a
        caption is missing.
    """

    takes = "<folder>"

    def __init__(self, request: Request):
        super().__init__(request)
        path, half = chosen(request.argument, request.root, HALVES)
        listing = walk(folder(path, "config.data.source"))
        foldered = places_of(listing)
        if not half and not foldered:
            raise UserError(
                f"{self.name!r} has no folder 'image' with one such as 'condition' beside it; make them, or write "
                f"'{self.name}:left' or '{self.name}:right' if each picture shows both, to say which half is the image."
            )
        if half and foldered:
            raise UserError(
                f"{self.name!r} has folders named 'image', so that its pictures are no halves; write "
                f"'{self.name.removesuffix(f':{half}')}'."
            )
        inner = SideBySide(request) if half else PairedFolders(request, path, listing, foldered)
        self._inner: Source = inner
        self.arrays, self.notes = inner.arrays, inner.notes
        self.num_classes, self.class_names = inner.num_classes, inner.class_names

    @property
    def captions(self) -> list[str] | None:
        """Returns the captions, or None without; no image is read for them."""
        return getattr(self._inner, "captions", None)

    def __len__(self) -> int:
        return len(self._inner)

    def __getitem__(self, index: int) -> Example:
        return self._inner[index]

    def take(self, indices: Sequence[int]) -> Examples:
        return self._inner.take(indices)


class SideBySide(Folder):
    """Gives the two halves of each picture of a folder as `image` and `condition`."""

    config_name = ""  # `Pairs` makes it
    choices = HALVES
    of_file = ("image", "condition")

    def __init__(self, request: Request):
        self._half = request.source.rpartition(":")[-1]
        super().__init__(request)
        path = self.base / self.files[0]
        with path.open("rb") as opened, open_image(opened, str(path)) as image:
            height, width = upright_size(image, str(path))
        other = HALVES[1 - HALVES.index(self._half)]
        size = f"{width // 2}x{height} pixels in {shown(self.files[0])}"
        self.notes = (f"the {self._half} half is the image and the {other} one the condition, {size}", *self.notes)

    def _layout(self, listing: Listing, choice: str, with_table: bool) -> Layout:
        splits = any(name.lower() in SPLIT_LIKE for name in listing.folders)
        return layout_of(self.name, listing, self.split, "splits" if splits else "")

    def _check_header(self, file: str) -> bool:
        path = self._top / file
        with path.open("rb") as opened, open_image(opened, repr(str(path))) as image:
            _check_even(upright_size(image, repr(str(path)))[1], repr(str(path)))
        return super()._check_header(file)

    def _decode(self, path: epath.Path) -> Example:
        where = repr(str(path))
        whole = load(path.read_bytes(), self.request.channels, where)
        _check_even(whole.width, where)
        boxes = [(start, 0, start + whole.width // 2, whole.height) for start in (0, whole.width // 2)]
        left, right = (fit(whole.crop(box), self.request.resolution) for box in boxes)
        image, condition = (left, right) if self._half == "left" else (right, left)
        return {"image": image, "condition": condition}


def _check_even(width: int, where: str) -> None:
    if width % 2:
        raise UserError(f"{where} is {width} pixels wide, which are no two halves of one width; crop it.")


class PairedFolders(Source):
    """Gives the pictures that have one name in several folders.

    Args:
      path: the whole folder.
      listing: what is in it.
      places: `{split: {entry: files}}`; the split "" is all.

    Attributes:
      files: the images' names below the folder, sorted.
      captions: the images' captions, or None without.
    """

    config_name = ""  # `Pairs` makes it

    def __init__(self, request: Request, path: epath.Path, listing: Listing, places: Places):
        super().__init__(request)
        check_split(self.name, self.split, ("all", "train", "test") if "" in places else sorted(places))
        prefix = "" if "" in places else f"{self.split}/"
        entries = _entries(self.name, places, listing.passed_over())
        named = {entry: _by_stem(places[prefix[:-1]].get(entry, ()), f"{prefix}{entry}/") for entry in entries}
        _check_partners(f"{self.name!r}, split {self.split}", named)
        stems = [s for s in sorted(named["image"]) if prefix or self.split in ("all", hash_split(s))]
        if not stems:
            every = f"{len(named['image']):,} pairs"
            raise UserError(f"Split {self.split!r} of {self.name!r} is empty: its {every} belong to other splits.")
        self.files = tuple(named["image"][stem] for stem in stems)
        columns = [self._column(path, entry, [named[entry][stem] for stem in stems], places) for entry in entries]
        self._columns = Columns(path, columns, request.resolution, request.num_classes)
        self._columns.check()
        captions = captions_of(listing, self.files, prefix)
        self.captions = captions.texts
        hashed = f"{len(stems):,} of {len(named['image']):,} pairs, split by a hash of their names"
        by_hash = [hashed] if not prefix and self.split != "all" else []
        self.notes = (*by_hash, *captions.notes, *_passed_over(listing, places, prefix, captions.read))
        if self._columns.fits:
            texts = {} if captions.texts is None else {"caption": np.array(captions.texts)}
            self.arrays = {**self._columns.read_all(), **texts}

    def _column(self, path: epath.Path, entry: str, files: Sequence[str], places: Places) -> Column:
        """Returns the column of an entry; `config.data.channels` is for the one that is the image in the end."""
        if entry == self.request.rename.get("image", "image") and entry not in MAPS:
            return Column(entry, tuple(files), self.request.channels)
        return column(path, entry, files, min(name for found in places.values() for name in found.get(entry, ())))

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Example:
        if self.arrays is not None:
            return super().__getitem__(index)
        text: Example = {} if self.captions is None else {"caption": np.str_(self.captions[index])}
        return {**self._columns.read(index), **text}


def places_of(listing: Listing) -> dict[str, dict[str, list[str]]]:
    """Returns `{split: {entry: files}}` by the names of folders, {} where none is called image."""
    top = _grouped(listing.images, 0)
    if "image" in top:
        return {"": top}
    found = {split: _grouped(files, 1) for split, files in top.items()}
    return {split: entries for split, entries in found.items() if "image" in entries}


def _grouped(files: Sequence[str], depth: int) -> dict[str, list[str]]:
    """Returns files by the folder that they are in at a depth; those that are in none are left out."""
    found: dict[str, list[str]] = {}
    for file in files:
        parts = file.split("/")
        if len(parts) > depth + 1:
            found.setdefault(parts[depth], []).append(file)
    return found


def _entries(source: str, places: Places, passed: str) -> list[str]:
    """Returns the names of the entries over all splits, the image's first."""
    others = sorted({entry for found in places.values() for entry in found} - {"image"})
    if not others:
        raise UserError(
            f"{source!r} has pictures in folders 'image' and none in one beside it, such as 'condition'; add them"
            + (f" ({passed})." if passed else ".")
        )
    for entry in others:
        if not entry.isidentifier() or entry in TAKEN:
            raise UserError(
                f"{source!r}: the folder {shown(entry)!r} beside 'image' cannot be an entry of pictures; call it "
                "'condition', or another plain word."
            )
    return ["image", *others]


def _by_stem(files: Sequence[str], prefix: str) -> dict[str, str]:
    """Returns files by their names below their entry's folder without ending."""
    found: dict[str, str] = {}
    for file in files:
        stem = unicodedata.normalize("NFC", file[len(prefix) :].rpartition(".")[0])
        if stem in found:
            raise UserError(
                f"{shown(found[stem])!r} and {shown(file)!r} have one name, so that it is not clear which is the "
                "partner; remove or rename one."
            )
        found[stem] = file
    return found


def _check_partners(where: str, named: Mapping[str, Mapping[str, str]]) -> None:
    images = named["image"].keys()
    missing = []
    for entry, stems in named.items():
        lone, other = sorted(images - stems.keys()), sorted(stems.keys() - images)
        missing += [f"no {entry} for the image{'s' if len(lone) > 1 else ''} {some(lone)}"] if lone else []
        missing += [f"no image for the {entry} {some(other)}"] if other else []
    if missing:
        raise UserError(f"{where}: there is {', and '.join(missing)}; add the partners of these names, or remove them.")


def _passed_over(listing: Listing, places: Places, prefix: str, read: Sequence[str]) -> list[str]:
    used = {file for found in places.values() for files in found.values() for file in files}
    stray = [file for file in listing.images if file not in used]
    part = listing.below(prefix[:-1]) if prefix else listing
    passed = part.passed_over([name[len(prefix) :] for name in read])
    told = f"{len(stray):,} pictures that are in no folder of an entry passed over: {some(stray)}" if stray else ""
    return [note for note in (told, passed) if note]
