"""`folder:<path>` is a folder of images, local or remote (gs://...).

Every image of the formats in `jaxgen.files.pictures` counts, by its ending. If all of them are in subfolders, those are
classes, numbered in the order of their sorted names. What is passed over is counted, and told at the start of training.

Splits: `<path>/<split>` where all subfolders are splits (any of train, test, val, validation marks it so; classes are
then numbered over all of these together). Otherwise `all`, and `train` and `test`: nine tenths and one tenth by a hash
of the file's name below the folder, so adding a file moves no other. A folder that may be meant in two ways is refused;
`folder:<path>:classes` and `folder:<path>:splits` choose.

Captions: a `captions.jsonl` in the folder or in that of the split, each line {"file": "<name below that
folder>", "caption": "..."}, or a .txt beside each image. Where there is one caption there must be all. Or a
`metadata.jsonl` (`jaxgen.data.folders.metadata`) says which pictures are images, and gives captions, labels, numbers
and further pictures.

Images of another size are cropped in the centre to the right aspect and resized (Lanczos, antialiased), which is told
at the start of training. The mode of a file must be the one that `channels` asks for. What fits in memory is decoded at
once, so that a damaged file is found before training; of larger sets only every file's header is read at the start.
Animations are passed over.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from etils import epath
from PIL import Image

from jaxgen.data.folders.caption_files import captions_of, in_threads
from jaxgen.data.folders.columns import Column, Columns, column
from jaxgen.data.folders.layout import CHOICES, Layout, layout_of
from jaxgen.data.folders.listing import Listing, walk
from jaxgen.data.folders.metadata import TABLE, Metadata, metadata_of, said_of, unnamed
from jaxgen.data.images import ManyFrames, check_mode, decode, upright_size
from jaxgen.data.source import MEMORY_LIMIT, Example, Examples, Request, Source, check_labels, locate
from jaxgen.errors import UserError
from jaxgen.files import folder
from jaxgen.files.pictures import SUFFIXES, open_image


class Folder(Source):
    """Gives a folder's images, decoded when they are asked for, where they do not fit in memory.

    An example has `image` uint8 [H, W, C], `label` int32 [] with class folders, `caption` str with captions, and what
    else a table says.

    Attributes:
      files: the images' names below `base`, sorted.
      base: the folder, or that of the split.
    """

    takes = "<path>"
    choices: ClassVar[tuple[str, ...]] = CHOICES  # what may end the argument, behind a colon
    of_file: ClassVar[tuple[str, ...]] = ("image",)  # the entries that one file gives

    def __init__(self, request: Request):
        super().__init__(request)
        path, choice = chosen(request.argument, request.root, self.choices)
        self._top = folder(path, "config.data.source")
        self._sizes: dict[str, tuple[int, int]] = {}  # height and width of each file's picture
        whole = walk(path)
        table = metadata_of(whole)
        listing = table.listing if table else whole
        layout = self._layout(listing, choice, table is not None)
        self.base = path / layout.prefix.rstrip("/") if layout.prefix else path
        self._check_some(layout, listing)
        pictures, kept = self._looked_at(layout.files)
        files = [layout.files[i] for i in kept]
        self.files = tuple(file[len(layout.prefix) :] for file in files)
        self.num_classes = request.num_classes or len(layout.classes)
        self.class_names = layout.classes
        self._known: dict[str, np.ndarray] = {}
        self._paired: Columns | None = None
        read, told = self._take_captions(listing, files, layout.prefix)
        if table:
            told += [*self._take_table(table, whole, files), unnamed(table, whole)]
        else:
            self._take_classes(layout, files)
        part = listing.below(layout.prefix.rstrip("/")) if layout.prefix else listing
        names = [name[len(layout.prefix) :] for name in (*read, *(table.tables if table else ()))]
        passed = part.passed_over(names, sorted({*layout.files} - {*files}))
        self.notes = tuple(filter(None, (*layout.notes, *told, passed, self._fitted(files))))
        if not files:
            raise UserError(f"Split {self.split!r} of {self.name!r} is empty: {passed}.")
        if pictures is not None and (self._paired is None or self._paired.fits):
            paired: Examples = self._paired.read_all() if self._paired else {}
            self.arrays = {**pictures, **paired, **self._known}

    def _layout(self, listing: Listing, choice: str, with_table: bool) -> Layout:
        """Returns how the folder is meant; where a table says what the images are, folders are no classes."""
        layout = layout_of(_without(self.name, choice), listing, self.split, choice if choice in CHOICES else "")
        if not with_table:
            return layout
        notes = tuple(note for note in layout.notes if not note.startswith("no classes"))
        return dataclasses.replace(layout, classes=(), notes=notes)

    def _take_captions(self, listing: Listing, files: Sequence[str], prefix: str) -> tuple[tuple[str, ...], list[str]]:
        """Reads the captions; returns the names of their files, and what is to be told."""
        captions = captions_of(listing, files, prefix)
        if captions.texts is not None:
            self._known["caption"] = np.array(captions.texts)
        return captions.read, [*captions.notes]

    def _take_table(self, table: Metadata, whole: Listing, files: Sequence[str]) -> list[str]:
        """Adds what a table says about the images; returns what is to be told."""
        said = said_of(table, whole, files)
        if "caption" in self._known and "caption" in said.arrays:
            raise UserError(
                f"{self.name!r} has captions in {table.tables[0]} and elsewhere (captions.jsonl, or a .txt beside an "
                "image); keep one of them."
            )
        self._known.update(said.arrays)
        classes = self.request.num_classes
        if "label" in said.arrays or "mask" not in said.pictures:
            check_labels(self.name, said.arrays.get("label"), classes)
        if "label" in said.arrays:
            found = len(table.classes) or int(said.arrays["label"].max()) + 1
            self.class_names, self.num_classes = table.classes, classes or found
        if said.pictures:
            image = Column("image", tuple(files), self.request.channels)
            others = [column(self._top, entry, names, said.first[entry]) for entry, names in said.pictures.items()]
            Columns(self._top, [image, *others], self.request.resolution).check()
            of_masks = 0 if "label" in said.arrays else classes
            self._paired = Columns(self._top, others, self.request.resolution, of_masks)
        return [*table.notes, *said.notes]

    def _looked_at(self, files: Sequence[str]) -> tuple[Examples | None, list[int]]:
        """Returns what the files hold, stacked, or None where it does not fit in memory, and which are one picture."""
        height, width = self.request.resolution
        if len(files) * height * width * self.request.channels * len(self.of_file) > MEMORY_LIMIT:
            single = in_threads(self._check_header, files)
            return None, [i for i, one in enumerate(single) if one]
        found = [(i, one) for i, one in enumerate(in_threads(self._single, files)) if one is not None]
        stacked = {name: np.stack([one[name] for _, one in found]) for name in self.of_file} if found else None
        return stacked, [i for i, _ in found]

    def _check_some(self, layout: Layout, listing: Listing) -> None:
        if layout.files:
            return
        if layout.everything:
            told = f"all {layout.everything:,} images of the folder belong to other splits"
        elif any(name.endswith(TABLE) for name in listing.others):
            told = f"no {TABLE} below {str(listing.folder)!r} names an image; add lines, or remove the table"
        else:
            told = f"there are no images ({', '.join(SUFFIXES)}) below {str(listing.folder)!r}"
            told += f"; {listing.passed_over()}" if listing.passed_over() else ""
        raise UserError(f"Split {self.split!r} of {self.name!r} is empty: {told}.")

    def _take_classes(self, layout: Layout, files: Sequence[str]) -> None:
        """Adds the numbers of the class folders."""
        labels = np.array([layout.label(file) for file in files], np.int32) if layout.classes else None
        wanted, found = self.request.num_classes, len(layout.classes)
        if wanted and found > wanted:
            raise UserError(
                f"{self.name!r} has {found} class folders, but config.data.num_classes is {wanted}; set it to {found}."
            )
        if wanted and labels is None and layout.notes and layout.notes[0].startswith("no classes"):
            raise UserError(
                f"config.data.num_classes is {wanted}, but {self.name!r} has {layout.notes[0]}; move these into "
                "class folders, or set config.data.num_classes to 0."
            )
        check_labels(self.name, labels, wanted)
        if labels is not None:
            self._known["label"] = labels

    @property
    def captions(self) -> list[str] | None:
        """Returns the images' captions, or None without; no image is read for them."""
        texts = self._known.get("caption")
        return None if texts is None else [str(text) for text in texts]

    def _fitted(self, files: Sequence[str]) -> str:
        """Returns a clause that says how many images are cropped or resized; "" where none is."""
        height, width = self.request.resolution
        sizes = [self._sizes[file] for file in files if file in self._sizes]
        other = sum(size != (height, width) for size in sizes)
        cropped = sum(round(size[1] * height / width) != size[0] for size in sizes)
        said = [
            f"{count:,} of {len(sizes):,} images {how} to {width}x{height}"
            for count, how in ((cropped, "cropped in the centre and resized"), (other - cropped, "resized"))
            if count
        ]
        return ", ".join(said)

    def column(self, entry: str) -> np.ndarray:
        return self._known[entry] if entry in self._known else super().column(entry)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Example:
        if self.arrays is not None:
            return super().__getitem__(index)
        paired = self._paired.read(index) if self._paired else {}
        known = {name: values[index] for name, values in self._known.items()}
        return {**self._decode(self.base / self.files[index]), **paired, **known}

    def _check_header(self, file: str) -> bool:
        """Returns whether a file is one picture, by its header. Raises UserError for a wrong mode."""
        path = self._top / file
        try:
            with path.open("rb") as opened, open_image(opened, repr(str(path))) as image:
                check_mode(image, self.request.channels, repr(str(path)))
                self._note_size(file, image)
        except ManyFrames:
            return False
        return True

    def _note_size(self, file: str, image: Image.Image) -> None:
        if self.of_file == ("image",):  # a file of several pictures says itself how it is cut
            self._sizes[file] = upright_size(image, repr(str(self._top / file)))

    def _single(self, file: str) -> Example | None:
        """Returns what is in a file, or None for an animation."""
        path = self._top / file
        try:
            found = self._decode(path)
        except ManyFrames:
            return None
        with path.open("rb") as opened, open_image(opened, repr(str(path))) as image:
            self._note_size(file, image)
        return found

    def _decode(self, path: epath.Path) -> Example:
        """Returns the entries `of_file` of a file."""
        return {"image": decode(path.read_bytes(), self.request.resolution, self.request.channels, repr(str(path)))}


def chosen(argument: str, root: str | None, choices: Sequence[str] = CHOICES) -> tuple[epath.Path, str]:
    """Returns the path of the folder that an argument names, and the choice that it ends with, such as "classes"."""
    path, _, choice = argument.rpartition(":")
    whole = locate(argument, root)
    if path and choice in choices and not whole.is_dir():
        return locate(path, root), choice
    return whole, ""


def _without(source: str, choice: str) -> str:
    return source.removesuffix(f":{choice}") if choice else source
