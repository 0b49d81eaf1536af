"""Reads entries of pictures that have one file for each example: the image, and what is paired with it.

The pictures of an example are brought to one size in one way, so they must be of one shape: where a condition is wider
than its image, the crop would move one against the other.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from etils import epath

from jaxgen.data.folders.caption_files import in_threads
from jaxgen.data.images import check_mode, decode, decode_mask, own_channels, upright_size
from jaxgen.data.source import MEMORY_LIMIT
from jaxgen.errors import UserError, shown
from jaxgen.files.pictures import open_image

CLASSES = "mask"  # the entry whose files hold numbers of classes: grey levels, or the indices of a palette
MAPS = (CLASSES, "instance")  # entries whose files hold numbers, of classes or of objects


@dataclasses.dataclass(frozen=True)
class Column:
    """Names the pictures of one entry.

    Attributes:
      entry: the entry's name.
      files: their names below the folder, one for each example.
      channels: 1, 3 or 4; 0 for numbers of classes or of objects, which become int32 `[H, W]`.
      reader: what asks for these channels, for messages; "" for `config.data.channels`.
    """

    entry: str
    files: tuple[str, ...]
    channels: int
    reader: str = ""

    @property
    def bytes_per_pixel(self) -> int:
        return self.channels or 4


def column(folder: epath.Path, entry: str, files: Sequence[str], first: str) -> Column:
    """Returns the column of an entry that is not the image.

    Args:
      first: the picture whose channels are those of all, the same for every split.

    Raises:
      UserError: the first picture cannot be opened.
    """
    if entry in MAPS:
        return Column(entry, tuple(files), 0)
    with (folder / first).open("rb") as opened, open_image(opened, repr(str(folder / first))) as image:
        channels = 4 if image.mode == "RGBA" else own_channels(image)
    return Column(entry, tuple(files), channels, f"{entry!r}, by its first picture {shown(first)},")


class Columns:
    """Reads the pictures of examples.

    Args:
      folder: the folder that holds the files.
      columns: the entries, each with one file for each example; the first is the image, which decides the shape.
      resolution: (height, width) of what is read.
      classes: numbers of classes must lie in [0, classes); 0 allows all.
    """

    def __init__(self, folder: epath.Path, columns: Sequence[Column], resolution: tuple[int, int], classes: int = 0):
        self._folder, self.columns, self._resolution, self._classes = folder, tuple(columns), resolution, classes

    def __len__(self) -> int:
        return len(self.columns[0].files)

    @property
    def fits(self) -> bool:
        """Returns whether all pictures together fit in memory."""
        height, width = self._resolution
        pixel = sum(column.bytes_per_pixel for column in self.columns)
        return len(self) * height * width * pixel <= MEMORY_LIMIT

    def check(self) -> None:
        """Reads the headers of all files.

        Raises:
          UserError: naming a file that is no picture, has other channels, or is of another shape than its image.
        """
        in_threads(self._check, range(len(self)))

    def read(self, index: int) -> dict[str, np.ndarray]:
        """Returns the pictures of an example, `{entry: uint8 [H, W, C], or int32 [H, W] of classes}`.

        Raises:
          UserError: naming a file that is damaged or holds a class that there is not.
        """
        return {column.entry: self._read(column, index) for column in self.columns}

    def read_all(self) -> dict[str, np.ndarray]:
        """Returns `read` of all examples, stacked."""
        rows = in_threads(self.read, range(len(self)))
        return {column.entry: np.stack([row[column.entry] for row in rows]) for column in self.columns}

    def _check(self, index: int) -> None:
        sizes = []
        for column in self.columns:
            path = self._folder / column.files[index]
            where = repr(str(path))
            with path.open("rb") as opened, open_image(opened, where) as image:
                if column.channels:
                    check_mode(image, column.channels, where, column.reader)
                sizes.append(upright_size(image, where))
        for column, size in zip(self.columns, sizes, strict=True):
            if not _alike(sizes[0], size):
                raise UserError(
                    f"{str(self._folder / column.files[index])!r} has {size[1]}x{size[0]} pixels, and its image "
                    f"{shown(self.columns[0].files[index])} {sizes[0][1]}x{sizes[0][0]}, which are of another shape; "
                    "crop them alike."
                )

    def _read(self, column: Column, index: int) -> np.ndarray:
        path = self._folder / column.files[index]
        data, where = path.read_bytes(), repr(str(path))
        if column.channels:
            return decode(data, self._resolution, column.channels, where, column.reader)
        classes = decode_mask(data, self._resolution, where, classes=True)
        if column.entry == CLASSES and self._classes and classes.max() >= self._classes:
            raise UserError(
                f"{where} holds class {classes.max()}, outside [0, {self._classes}); set config.data.num_classes or "
                "correct the file."
            )
        return classes


def _alike(image: tuple[int, int], other: tuple[int, int]) -> bool:
    """Returns whether two sizes (height, width) are of one shape, up to the rounding of a resize."""
    height, width = image
    return abs(other[1] * height / width - other[0]) < 1 or abs(other[0] * width / height - other[1]) < 1
