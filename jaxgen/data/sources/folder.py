"""`folder:<path>` is a folder of images, local or remote (gs://...).

Every .png, .jpg, .jpeg, .webp and .bmp below the folder counts, hidden ones aside. If all of them lie in subfolders,
those are classes, numbered in the order of their sorted names.

Splits: `<path>/<split>` where the folder has such (any of train, test, val, validation marks it so; classes are then
numbered over all of these together). Otherwise `all`, and `train` and `test`: nine tenths and one tenth by a hash of
the file's name below the folder, so adding a file moves no other.

Captions: a `captions.jsonl` in the folder, each line {"file": "<name below the folder>", "caption": "..."}, or a
.txt beside each image. Where there is one caption there must be all.

Images of another size are cropped in the centre to the right aspect and resized (Lanczos, antialiased). The mode of a
file must be the one that `channels` asks for. What fits in memory is decoded at once, so that a damaged file is found
before training; of larger sets only every file's header is read at the start.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
from etils import epath

from jaxgen.data.images import check_mode, decode, open_image
from jaxgen.data.source import MEMORY_LIMIT, Example, Request, Source, check_labels, check_split, hash_split, locate
from jaxgen.errors import UserError

T = TypeVar("T")
U = TypeVar("U")

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
SPLIT_FOLDERS = ("train", "test", "val", "validation")
THREADS = 16


class Folder(Source):
    """A folder's images; decoded when they are asked for, where they do not fit in memory.

    Examples: `image` uint8 [H, W, C], `label` int32 [] with class folders, `caption` str with captions.
    """

    takes = "<path>"

    def __init__(self, request: Request):
        super().__init__(request)
        top = locate(request.argument, request.root)
        if not top.is_dir():
            raise UserError(f"There is no folder {str(top)!r} (config.data.source).")
        self.base, files, classes = _files_of(self.name, top, self.split)
        self.files = tuple(files)  # names below `base`, sorted
        self.num_classes = request.num_classes or len(classes)
        self.class_names = tuple(classes)
        self._labels = self._labels_of(files, classes)
        self._captions = captions_of(self.base, files)
        if len(files) * request.resolution[0] * request.resolution[1] * request.channels > MEMORY_LIMIT:
            _in_threads(self.check_header, range(len(files)))
        elif files:
            examples = _in_threads(self.__getitem__, range(len(files)))
            self.arrays = {key: np.stack([example[key] for example in examples]) for key in examples[0]}

    def _labels_of(self, files: Sequence[str], classes: Sequence[str]) -> np.ndarray | None:
        labels = np.array([classes.index(file.split("/")[0]) for file in files], np.int32) if classes else None
        if self.request.num_classes and len(classes) > self.request.num_classes:
            raise UserError(
                f"{self.name!r} has {len(classes)} class folders, but config.data.num_classes is "
                f"{self.request.num_classes}; set it to {len(classes)}."
            )
        if files:
            check_labels(self.name, labels, self.request.num_classes)
        return labels

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Example:
        if self.arrays is not None:
            return super().__getitem__(index)
        path = self.base / self.files[index]
        example: Example = {"image": self._decode(path)}
        if self._labels is not None:
            example["label"] = self._labels[index]
        if self._captions is not None:
            example["caption"] = np.str_(self._captions[index])
        return example

    def check_header(self, index: int) -> None:
        """Raises UserError if file `index` is no image of the right mode; its pixels are not read."""
        path = self.base / self.files[index]
        with path.open("rb") as file, open_image(file, repr(str(path))) as image:
            check_mode(image, self.request.channels, repr(str(path)))

    def _decode(self, path: epath.Path) -> np.ndarray:
        return decode(path.read_bytes(), self.request.resolution, self.request.channels, repr(str(path)))


def _files_of(name: str, top: epath.Path, split: str) -> tuple[epath.Path, list[str], list[str]]:
    """Returns the folder that a split is in, its images' names below that, and its classes (or none)."""
    marked = [word for word in SPLIT_FOLDERS if (top / word).is_dir()]
    if not marked and not (top / split).is_dir():
        check_split(name, split, ("all", "train", "test"))
        everything = images_below(top)
        return top, [file for file in everything if split in ("all", hash_split(file))], _classes_of(everything)
    known = marked if split in marked or not (top / split).is_dir() else [*marked, split]
    check_split(name, split, known)
    # A class that one split lacks must not shift the numbers of the others, so all are looked at.
    images = {word: images_below(top / word) for word in known}
    labelled = all(_classes_of(files) for files in images.values() if files)
    classes = sorted({word for files in images.values() for word in _classes_of(files)}) if labelled else []
    return top / split, images[split], classes


def images_below(folder: epath.Path) -> list[str]:
    """Returns the names of all image files below a folder, sorted, without hidden ones."""
    return sorted(file for file in _walk(folder) if file.lower().endswith(SUFFIXES))


def _walk(folder: epath.Path, prefix: str = "") -> Iterator[str]:
    for entry in folder.iterdir():
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            yield from _walk(entry, f"{prefix}{entry.name}/")
        else:
            yield prefix + entry.name


def _classes_of(files: Sequence[str]) -> list[str]:
    if any("/" not in file for file in files):
        return []
    return sorted({file.split("/")[0] for file in files})


def captions_of(base: epath.Path, files: Sequence[str]) -> list[str] | None:
    """The caption of each file, or None where there are none; raises a UserError where some are missing."""
    table = base / "captions.jsonl"
    if table.exists():
        known = dict(_caption_lines(table))
        suggestion = f"add it to {str(table)!r}"
    else:
        present = set(_walk(base))
        notes = {file: file.rsplit(".", 1)[0] + ".txt" for file in files}
        notes = {file: note for file, note in notes.items() if note in present}
        texts = _in_threads(lambda note: (base / note).read_text().strip(), list(notes.values()))
        known = dict(zip(notes, texts, strict=True))
        suggestion = "write a .txt beside it"
    if not any(file in known for file in files):
        return None
    for file in files:
        if not known.get(file):
            raise UserError(f"{str(base / file)!r} has no caption while others have; {suggestion}.")
    return [known[file] for file in files]


def _caption_lines(table: epath.Path) -> Iterator[tuple[str, str]]:
    for number, line in enumerate(table.read_text().splitlines(), start=1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
            yield str(entry["file"]), str(entry["caption"])
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(
                f'Line {number} of {str(table)!r} is not {{"file": "...", "caption": "..."}}; correct it.'
            ) from error


def _in_threads(function: Callable[[T], U], items: Iterable[T]) -> list[U]:
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(function, items))
