"""`folder:<path>` is a folder of images, local or remote (gs://...).

Every image of the formats in `jaxgen.files.pictures` counts, by its ending. If all of them are in subfolders, those are
classes, numbered in the order of their sorted names. What is passed over is counted, and told at the start of training.

Splits: `<path>/<split>` where all subfolders are splits (any of train, test, val, validation marks it so; classes are
then numbered over all of these together). Otherwise `all`, and `train` and `test`: nine tenths and one tenth by a hash
of the file's name below the folder, so adding a file moves no other. A folder that may be meant in two ways is refused;
`folder:<path>:classes` and `folder:<path>:splits` choose.

Captions: a `captions.jsonl` in the folder or in that of the split, each line {"file": "<name below that
folder>", "caption": "..."}, or a .txt beside each image. Where there is one caption there must be all.

Images of another size are cropped in the centre to the right aspect and resized (Lanczos, antialiased). The mode of a
file must be the one that `channels` asks for. What fits in memory is decoded at once, so that a damaged file is found
before training; of larger sets only every file's header is read at the start. Animations are passed over.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from etils import epath

from jaxgen.data.folders.caption_files import captions_of, in_threads
from jaxgen.data.folders.layout import CHOICES, Layout, layout_of
from jaxgen.data.folders.listing import Listing, walk
from jaxgen.data.images import ManyFrames, check_mode, decode
from jaxgen.data.source import MEMORY_LIMIT, Example, Request, Source, check_labels, locate
from jaxgen.errors import UserError
from jaxgen.files import folder
from jaxgen.files.pictures import SUFFIXES, open_image


class Folder(Source):
    """Gives a folder's images, decoded when they are asked for, where they do not fit in memory.

    An example has `image` uint8 [H, W, C], `label` int32 [] with class folders, and `caption` str with captions.

    Attributes:
      files: the images' names below `base`, sorted.
      base: the folder, or that of the split.
      captions: the images' captions, or None without.
    """

    takes = "<path>"

    def __init__(self, request: Request):
        super().__init__(request)
        path, choice = chosen(request.argument, request.root)
        self._top = folder(path, "config.data.source")
        listing = walk(path)
        layout = layout_of(_without(request.source, choice), listing, self.split, choice)
        self.base = path / layout.prefix.rstrip("/") if layout.prefix else path
        self._check_some(layout, listing)
        images, kept = self._looked_at(layout.files)
        files = [layout.files[i] for i in kept]
        self.files = tuple(file[len(layout.prefix) :] for file in files)
        self.num_classes = request.num_classes or len(layout.classes)
        self.class_names = layout.classes
        self._labels = self._labels_of(layout, files)
        captions = captions_of(listing, files, layout.prefix)
        self.captions = captions.texts
        part = listing.below(layout.prefix.rstrip("/")) if layout.prefix else listing
        read = [name[len(layout.prefix) :] for name in captions.read]
        passed = part.passed_over(read, sorted({*layout.files} - {*files}))
        self.notes = tuple(filter(None, (*layout.notes, *captions.notes, passed)))
        if not files:
            raise UserError(f"Split {self.split!r} of {self.name!r} is empty: {passed}.")
        if images is not None:
            self.arrays = {"image": images, **self._others(slice(None))}

    def _looked_at(self, files: Sequence[str]) -> tuple[np.ndarray | None, list[int]]:
        """Returns the images [N, H, W, C], or None where they do not fit in memory, and which files are one picture."""
        height, width = self.request.resolution
        if len(files) * height * width * self.request.channels > MEMORY_LIMIT:
            single = in_threads(self._check_header, files)
            return None, [i for i, one in enumerate(single) if one]
        found = [(i, image) for i, image in enumerate(in_threads(self._single, files)) if image is not None]
        images = [image for _, image in found]
        return np.stack(images) if images else None, [i for i, _ in found]

    def _check_some(self, layout: Layout, listing: Listing) -> None:
        if layout.files:
            return
        if layout.everything:
            told = f"all {layout.everything:,} images of the folder belong to other splits"
        else:
            told = f"there are no images ({', '.join(SUFFIXES)}) below {str(listing.folder)!r}"
            told += f"; {listing.passed_over()}" if listing.passed_over() else ""
        raise UserError(f"Split {self.split!r} of {self.name!r} is empty: {told}.")

    def _labels_of(self, layout: Layout, files: Sequence[str]) -> np.ndarray | None:
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
        return labels

    def _others(self, index: int | slice) -> Example:
        found: Example = {}
        if self._labels is not None:
            found["label"] = self._labels[index]
        if self.captions is not None:
            texts = self.captions[index]
            found["caption"] = np.str_(texts) if isinstance(texts, str) else np.array(texts)
        return found

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Example:
        if self.arrays is not None:
            return super().__getitem__(index)
        return {"image": self._decode(self.base / self.files[index]), **self._others(index)}

    def _check_header(self, file: str) -> bool:
        """Returns whether a file is one picture, by its header. Raises UserError for a wrong mode."""
        path = self._top / file
        try:
            with path.open("rb") as opened, open_image(opened, repr(str(path))) as image:
                check_mode(image, self.request.channels, repr(str(path)))
        except ManyFrames:
            return False
        return True

    def _single(self, file: str) -> np.ndarray | None:
        """Returns the image in a file, or None for an animation."""
        try:
            return self._decode(self._top / file)
        except ManyFrames:
            return None

    def _decode(self, path: epath.Path) -> np.ndarray:
        return decode(path.read_bytes(), self.request.resolution, self.request.channels, repr(str(path)))


def chosen(argument: str, root: str | None) -> tuple[epath.Path, str]:
    """Returns the path of the folder that an argument names, and the "classes" or "splits" that it ends with."""
    path, _, choice = argument.rpartition(":")
    whole = locate(argument, root)
    if path and choice in CHOICES and not whole.is_dir():
        return locate(path, root), choice
    return whole, ""


def _without(source: str, choice: str) -> str:
    return source.removesuffix(f":{choice}") if choice else source
