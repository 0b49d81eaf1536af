"""Reads the pictures that a model is given at sampling: files become entries of its batches, fitted to its `Slot`s."""

from __future__ import annotations

import collections
import dataclasses
import logging
import math
from collections.abc import Mapping, Sequence

import numpy as np
from etils import epath

from jaxgen.data.images import decode, decode_mask, upright_size
from jaxgen.errors import UserError
from jaxgen.files import regular_file
from jaxgen.files.pictures import open_image
from jaxgen.sampling.slots import BEGUN, FREE, Files, Slot
from jaxgen.sizes import check_fits

log = logging.getLogger("jaxgen")


@dataclasses.dataclass(frozen=True)
class Inputs:
    """Holds what was read.

    Attributes:
      rows: `{entry: [N, ...]}`, uint8 pictures and sets of pictures, and int32 masks; image i has row `i % N`.
      files: the files, or folders of sets, that outputs are named after; image i comes from file `i % N`.
      layouts: `{entry: number of classes}` of the rows that are classes of pixels; the number is 0 if it is not known.
    """

    rows: dict[str, np.ndarray]
    files: tuple[epath.Path, ...]
    layouts: Mapping[str, int] = dataclasses.field(default_factory=dict)

    def names(self, num: int) -> list[str]:
        """Returns a name for each of `num` images: that of its file, with a number where a file has several images."""
        stems = collections.Counter(file.stem for file in self.files)
        named = [file.stem if stems[file.stem] == 1 else file.name for file in self.files]
        count = len(named)
        return [named[i % count] + (f"_{i // count + 1}" if num > count else "") for i in range(num)]


def read_inputs(asked: Files, slots: Mapping[str, Slot], num: int) -> Inputs:
    """Reads the files of each slot; at most the first `num`. Says in one line for each flag what was changed to fit.

    Args:
      asked: `{entry as the user calls it: files}`.
      slots: `{entry as the user calls it: slot}`.

    Raises:
      UserError: a file cannot be read, has other channels, or is a mask that is all black or of another size than its
        image.
    """
    rows, sizes, named = {}, {}, {}
    for name, slot in slots.items():
        sets = _sets(name or "input", asked[name], num) if slot.kind == "set" else {}
        files = [file for of in sets.values() for file in of] if sets else asked[name][:num]
        check_fits(len(files) * math.prod(slot.shape[-3:]) * 4, f"{len(files)} pictures of {slot.entry}", "give fewer")
        read = [_read(file, slot) for file in files]
        if slot.kind == "mask":
            _check_masks(files, read, slot.entry)
        values = np.stack([values for values, _ in read])
        rows[slot.entry] = values.reshape(len(sets), -1, *values.shape[1:]) if sets else values
        sizes[slot.entry] = [size for _, size in read]
        named[name] = list(sets) if sets else files
        _tell(name or "input", files, slot, read)
    layouts = {slot.entry for slot in slots.values() if slot.kind == "classes"}
    for mask, image in ((FREE, BEGUN), ("mask", "condition"), ("mask", "image")):
        if mask in sizes and image in sizes and mask not in layouts:  # a layout and a picture may be of two scenes
            _check_sizes(sizes[mask], sizes[image])
    most = max(map(len, rows.values()))
    order = (*(n for n in slots if slots[n].kind == "classes"), *(n for n in ("image", "") if n in slots), *slots)
    first = next(name for name in order if len(named[name]) == most)
    classes = {slot.entry: slot.classes for slot in slots.values() if slot.kind == "classes"}
    return Inputs(rows, tuple(named[first]), classes)


def _sets(name: str, files: Sequence[epath.Path], num: int) -> dict[epath.Path, list[epath.Path]]:
    """Returns `{folder: its pictures}`, at most the first `num`: the pictures of one folder are one set.

    Raises:
      UserError: sets of one call differ in size.
    """
    found: dict[epath.Path, list[epath.Path]] = {}
    for file in files:
        found.setdefault(file.parent, []).append(file)
    found = dict(list(found.items())[:num])
    if len({len(of) for of in found.values()}) > 1:
        counts = ", ".join(f"{folder} {len(of)}" for folder, of in found.items())
        raise UserError(
            f"{name}: the sets of one call have equal numbers of pictures, and these have {counts}; give one folder at "
            "a time, or folders of as many pictures."
        )
    log.info("%s: %s", name, "; ".join(f"a set of {len(of)} pictures from {folder}" for folder, of in found.items()))
    return found


def _read(file: epath.Path, slot: Slot) -> tuple[np.ndarray, tuple[int, int]]:
    """Returns a file's array, of the slot's shape, and the height and width of its picture."""
    data, where = regular_file(file, "the picture").read_bytes(), str(file)
    with open_image(data, where) as image:
        size, grey = upright_size(image, where), image.mode in ("L", "1") and "transparency" not in image.info
    if slot.kind in ("picture", "set"):
        height, width, channels = slot.shape[-3:]
        if channels == 3 and grey:  # exact: one level for red, green and blue
            return np.repeat(decode(data, (height, width), 1, where, "this model"), 3, axis=-1), size
        return decode(data, (height, width), channels, where, "this model"), size
    shape = slot.shape[0], slot.shape[1]
    if slot.kind == "mask":
        return (decode_mask(data, shape, where) >= 128).astype(np.int32), size
    if slot.legend is not None:
        return slot.legend.decode(data, shape, where), size
    classes = decode_mask(data, shape, where, True, "its classes are to be numbers: give --legend=<file>, which says "
                          "which colour is which class")  # fmt: skip
    _check_classes(classes, slot, where)
    return classes, size


def _check_classes(classes: np.ndarray, slot: Slot, where: str) -> None:
    """Raises a UserError for a number that is no class of the model."""
    wrong = classes[classes >= slot.classes] if slot.classes else classes[:0]
    if wrong.size:
        raise UserError(
            f"{where} has the number {int(wrong.max())}, and the classes of this model are 0 to {slot.classes - 1}: "
            "correct it, or give --legend=<file>, which says which number or colour is which class."
        )


def _check_sizes(masks: Sequence[tuple[int, int]], images: Sequence[tuple[int, int]]) -> None:
    for i in range(max(len(masks), len(images))):
        mask, image = masks[i % len(masks)], images[i % len(images)]
        if mask != image:
            raise UserError(
                f"the mask of image {i} has {mask[1]}x{mask[0]} pixels, and the image {image[1]}x{image[0]}; make them "
                "of one size."
            )


def _check_masks(files: Sequence[epath.Path], read: Sequence[tuple[np.ndarray, tuple[int, int]]], entry: str) -> None:
    for file, (mask, _) in zip(files, read, strict=True):
        if not mask.any():
            raise UserError(f"{file} is a mask without white: nothing would be drawn; paint white what may change.")
        if mask.all() and entry == "mask":  # a picture to begin with may change everywhere
            raise UserError(
                f"{file} is a mask without black: nothing of the image would be kept; paint black what is known, or, "
                "for a model that draws whole images, leave the mask out."
            )


def _tell(
    name: str, files: Sequence[epath.Path], slot: Slot, read: Sequence[tuple[np.ndarray, tuple[int, int]]]
) -> None:
    """Logs what a flag's files became."""
    height, width = slot.shape[-3:-1] if slot.kind == "set" else slot.shape[:2]
    sizes = [size for _, size in read]
    fitted = sum(size != (height, width) for size in sizes)
    cropped = sum(round(size[1] * height / width) != size[0] for size in sizes)
    said = [f"{files[0].name}" if len(files) == 1 else f"{len(files)} files, from {files[0].name} to {files[-1].name}"]
    for count, how in ((cropped, "cropped in the centre and resized"), (fitted - cropped, "resized")):
        if count:
            which = str(count) if len(files) > 1 else "it"
            said.append(f"{which} {'is' if count == 1 else 'are'} {how} to {width}x{height}")
    colours = np.stack([values for values, _ in read]) if slot.shape[-1] == 3 else None
    if colours is not None and (colours == colours[..., :1]).all():
        said.append("grey, so that red, green and blue are equal")
    if slot.kind == "mask":
        said.append(f"white, {100 * np.mean([mask.mean() for mask, _ in read]):.3g} % of the pixels, is drawn")
    log.info("%s: %s", name, "; ".join(said))
