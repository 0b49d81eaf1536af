"""Opens image sets on the command line of metrics: folders, archives and data sources, read in batches.

A set need not fit in memory. What is wrong with a file is said before any network looks at the first image.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
from etils import epath

from jaxgen.data import open_source, sources
from jaxgen.data.folders.caption_files import THREADS, Captions, captions_of
from jaxgen.data.folders.layout import SPLIT_LIKE
from jaxgen.data.folders.listing import walk
from jaxgen.data.folders.metadata import named_images
from jaxgen.data.image_arrays import check_layout
from jaxgen.data.images import check_mode, decode, from_array, own_channels, upright_size
from jaxgen.errors import UserError, some
from jaxgen.files import user_path
from jaxgen.files.arrays import Archive
from jaxgen.files.pictures import SUFFIXES, open_image
from jaxgen.metrics.partners import partners

KEYS = ("image", "images", "arr_0", "samples")  # of an archive's images; arr_0 as ADM writes it
X = TypeVar("X")
Y = TypeVar("Y")
ImageBatch = np.ndarray | list[np.ndarray]


@dataclasses.dataclass(frozen=True)
class ImageSet:
    """Holds an opened set of images, which is read in batches.

    Attributes:
      name: the name as it was given, for records.
      count: the number of images.
      channels: 1 or 3.
      shape: `(H, W, C)` of all images, or None where their sizes differ.
      batches: gives the batches of a size in order: uint8 `[B, H, W, C]`, or lists of `[H, W, C]` where sizes differ.
      fingerprint: a hash of what the images are made from; takes one pass.
      captions: one per image, or None.
      notes: what is to be told about how the set was understood.
      files: the names of a folder's images below it, in order.
      everything: those of all its images, before `num`.
    """

    name: str
    count: int
    channels: int
    shape: tuple[int, int, int] | None
    batches: Callable[[int], Iterator[ImageBatch]]
    fingerprint: Callable[[], str]
    captions: Sequence[str] | None = None
    notes: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    everything: tuple[str, ...] = ()


def is_source(text: str) -> bool:
    """Returns whether a text names a data source with a split, and not a path."""
    return sources.is_source(text) and (":" in text or "/" in text)


def open_set(
    text: str,
    resolution: tuple[int, int] | None = None,
    channels: int | None = None,
    num: int = 0,
    captioned: bool = False,
    beside: ImageSet | None = None,
) -> ImageSet:
    """Opens a set.

    Args:
      text: a folder (sub-folders count), a `.npz` file with an array `image`, `images`, `arr_0` or `samples`, or a data
        source with its split, such as `digits/test`, `tfds:cifar10/test`, `folder:photos/train`.
      resolution: (height, width) that images are cropped and resized to; None leaves them as they are. Sources that
        have no size of their own need it.
      channels: 1 or 3; None takes what the images have.
      num: images taken, evenly spread; 0 takes all.
      captioned: whether captions are read.
      beside: a folder whose images' partners are taken, in its order; they are found by their names.

    Raises:
      UserError: naming the file, for anything that is not there, damaged, of another kind than its neighbours, or too
        small a set.
    """
    try:
        if is_source(text):
            return _of_source(text, resolution, channels, num, captioned)
        path = user_path(text, "the image set")
        if path.is_dir():
            return _of_folder(text, path, resolution, channels, num, captioned, beside)
        if not path.exists():
            raise UserError(f"There is no folder or file {text!r}, and it names no data source such as 'digits/test'.")
        if path.suffix != ".npz":
            raise UserError(f"{text!r} is neither a folder nor an .npz file of images.")
        return _of_archive(text, path, resolution, channels, num)
    except UserError as error:  # the data room speaks of a config, which there is none of here
        raise UserError(str(error).replace("config.data.", "--")) from error


def _chosen(name: str, count: int, num: int) -> np.ndarray:
    if num > count:
        raise UserError(f"--num={num} images are asked of {name!r}, which has {count}.")
    return np.linspace(0, count - 1, num).astype(int) if num else np.arange(count)


def _parts(indices: np.ndarray, size: int) -> list[np.ndarray]:
    return [indices[i : i + size] for i in range(0, len(indices), size)]


def _ahead(function: Callable[[X], Y], parts: Sequence[Sequence[X]]) -> Iterator[list[Y]]:
    """Yields `[function(x) for x in part]` for each part; threads make the next part while the last one is used."""
    with ThreadPoolExecutor(THREADS) as pool:
        waiting = iter(parts)
        begun = [[pool.submit(function, x) for x in part] for part in itertools.islice(waiting, 1)]
        while begun:
            begun += [[pool.submit(function, x) for x in part] for part in itertools.islice(waiting, 1)]
            yield [job.result() for job in begun.pop(0)]


# folders


def _of_folder(
    name: str, path: epath.Path, resolution: tuple[int, int] | None, channels: int | None, num: int, captioned: bool,
    beside: ImageSet | None,
) -> ImageSet:  # fmt: skip
    drawn = path / "samples.npz"
    if drawn.exists():
        raise UserError(
            f"{name!r} is what --mode=sample wrote, whose pictures are grids of many samples: name its file, {drawn}."
        )
    listing, of_table = named_images(walk(path), captioned)
    files = list(listing.images)
    passed = listing.passed_over()
    if not files:
        told = f"; {passed}" if passed else ""
        raise UserError(f"There are no images ({', '.join(SUFFIXES)}) in the folder {name!r}{told}.")
    found = of_table or (captions_of(listing, files) if captioned else Captions(None))
    splits = [word for word in listing.folders if word.lower() in SPLIT_LIKE]
    mixed = f"those of the folders {some(splits)} among them; name one of these for a split" if splits else ""
    notes = tuple(filter(None, (mixed, *found.notes, listing.passed_over(found.read))))
    captions = found.texts
    indices = _chosen(name, len(files), num)
    if beside is not None:
        found_in = partners(beside.name, beside.everything, name, listing.images)
        places = {file: i for i, file in enumerate(listing.images)}
        indices = np.array([places[found_in[file]] for file in beside.files], int)
    files = [files[i] for i in indices]
    if channels is None:
        with (path / files[0]).open("rb") as opened, open_image(opened, repr(str(path / files[0]))) as first:
            channels = own_channels(first)

    def header(file: str) -> tuple[int, int]:
        where = repr(str(path / file))
        with (path / file).open("rb") as opened, open_image(opened, where) as image:
            if image.has_transparency_data:
                raise UserError(f"{where} has an alpha channel, which no metric sees; put it on a background first.")
            check_mode(image, channels, where)
            return upright_size(image, where)

    with ThreadPoolExecutor(THREADS) as pool:
        sizes = dict(zip(files, pool.map(header, files), strict=True))
    one = resolution or (sizes[files[0]] if len(set(sizes.values())) == 1 else None)

    def image(file: str) -> np.ndarray:
        data = (path / file).read_bytes()
        return decode(data, resolution or sizes[file], channels, repr(str(path / file)))

    def batches(size: int) -> Iterator[ImageBatch]:
        for part in _ahead(image, [[files[i] for i in p] for p in _parts(np.arange(len(files)), size)]):
            yield np.stack(part) if one else part

    def fingerprint() -> str:
        found = hashlib.sha256()
        for part in _ahead(lambda file: hashlib.sha256((path / file).read_bytes()).digest(), [files]):
            for digest in part:
                found.update(digest)
        return found.hexdigest()

    shape = (*one, channels) if one else None
    captions = [captions[i] for i in indices] if captions is not None else None
    return ImageSet(
        name, len(files), channels, shape, batches, fingerprint, captions, notes, tuple(files), listing.images
    )


# archives


def _of_archive(
    name: str, path: epath.Path, resolution: tuple[int, int] | None, channels: int | None, num: int
) -> ImageSet:
    with Archive(path, "the image set") as archive:
        key = next((k for k in KEYS if k in archive.names), None)
        if key is None:
            raise UserError(f"{name!r} has no array {', '.join(KEYS)}; it has {', '.join(archive.names) or 'none'}.")
        header = archive.header(key)
    shape = header.shape
    if header.dtype != np.uint8 or len(shape) not in (3, 4) or not all(shape):
        raise UserError(
            f"{key!r} of {name!r} is {header.dtype} of shape {shape}; uint8 [N, H, W] or [N, H, W, C] is needed."
        )
    check_layout(name, shape)
    own = shape[3] if len(shape) == 4 else 1
    if channels not in (None, own):
        raise UserError(f"The images of {name!r} have {own} channel(s), not --channels={channels}.")
    indices = _chosen(name, shape[0], num)
    height, width = resolution or shape[1:3]

    def rows(size: int) -> Iterator[np.ndarray]:
        with Archive(path, "the image set") as archive:
            yield from archive.rows(key, _parts(indices, size))

    def batches(size: int) -> Iterator[np.ndarray]:
        for images in rows(size):
            images = images.reshape(*images.shape[:3], own)
            if resolution and resolution != shape[1:3]:
                images = np.stack([from_array(x, resolution, own, f"An image of {name!r}") for x in images])
            yield images

    def fingerprint() -> str:
        found = hashlib.sha256()
        for images in rows(1000):
            found.update(np.ascontiguousarray(images).data)
        return found.hexdigest()

    return ImageSet(name, len(indices), own, (height, width, own), batches, fingerprint)


# data sources


def _of_source(
    text: str, resolution: tuple[int, int] | None, channels: int | None, num: int, captioned: bool
) -> ImageSet:
    name, _, split = text.rpartition("/")
    if not name:
        raise UserError(f"{text!r} names no split; write it behind a slash, such as 'digits/test'.")
    if resolution is None and name != "digits":
        raise UserError(f"{text!r} has no size of its own; give --resolution.")
    own = {"digits": 1}.get(name, 3)
    source = open_source(name, split, resolution or 8, channels or own)
    indices = _chosen(text, len(source), num)

    def batches(size: int) -> Iterator[np.ndarray]:
        for part in _parts(indices, size):
            yield np.asarray(source.take(list(part))["image"])

    def fingerprint() -> str:
        found = hashlib.sha256()
        for images in batches(1000):
            found.update(np.ascontiguousarray(images).data)
        return found.hexdigest()

    example = source[0]
    captions = None
    if captioned and "caption" in example:
        captions = [str(text) for part in _parts(indices, 1000) for text in source.take(list(part))["caption"]]
    shape = example["image"].shape
    return ImageSet(text, len(indices), shape[2], shape, batches, fingerprint, captions, source.notes)
