"""Says which pictures a model reads: as conditions, or to begin with; and matches them with the flags that give them.

A model reads a picture as a condition (`condition`, `hint`, `mask`), whose size, channels and type are those that it
learned with. Or a diffusion model begins with a picture and changes it (`jaxgen.editing.edited`); the entries are then
`BEGUN` and `FREE`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import Literal

import numpy as np
from etils import epath

from jaxgen.config import image_shape
from jaxgen.data.corruptions import leaves_nothing_known, shapes_of
from jaxgen.data.images import MODES
from jaxgen.data.legend import Legend, read_legend
from jaxgen.errors import UserError, nearest
from jaxgen.sampling.generator import Generator
from jaxgen.sampling.restore import TrainedModel

BEGUN, FREE = "edit_image", "edit_mask"  # the picture that an edit begins with; int32 [H, W], 1 where it may change
Files = Mapping[str, Sequence[epath.Path]]  # {entry as the user calls it: files}
ELSEWHERE = {"tokens": "give --prompt", "label": "give --labels", "null_tokens": "give --negative_prompt"}


@dataclasses.dataclass(frozen=True)
class Slot:
    """Holds what a model reads from a picture.

    Attributes:
      entry: the entry of a batch.
      shape: `(H, W, C)` of a picture, `(K, H, W, C)` of a set of pictures, `(H, W)` of others. A set may be larger or
        smaller than the K that the model learned with.
      kind: "set" is all pictures of a folder; "mask" is 1 where a grey file is white, and 0 elsewhere; "classes" are a
        file's grey levels or indices, or what a legend says of its colours.
      classes: how many classes there are; 0 where that is not known.
      legend: which colour is which class; None where the file has the numbers themselves.
    """

    entry: str
    shape: tuple[int, ...]
    kind: Literal["picture", "set", "mask", "classes"] = "picture"
    classes: int = 0
    legend: Legend | None = None


def slots_of(trained: TrainedModel) -> dict[str, Slot]:
    """Returns the conditions of a model that can be read from pictures, with the shapes that it learned with."""
    generator = trained.generator
    made = shapes_of(generator.corruptions, image_shape(generator.config))
    known = {**generator.method.entries, **trained.example, **made}
    found = {}
    for name in (*generator.method.conditions, *generator.method.optional):
        shape, dtype = known.get(name, ((), "float32"))
        kind = np.dtype(dtype).kind
        if len(shape) in (3, 4) and shape[-1] in MODES and (kind == "f" or np.dtype(dtype) == np.uint8):
            found[name] = Slot(name, shape, "picture" if len(shape) == 3 else "set")
        elif len(shape) == 2 and kind in "iu":
            limit = 0 if name in made else generator.method.limits.get(name, 0)
            found[name] = Slot(name, shape, "mask" if name in made else "classes", limit)
    return found


def with_legend(slots: Mapping[str, Slot], path: str) -> dict[str, Slot]:
    """Returns the slots, those of classes with the legend of a file.

    Args:
      slots: those that the user gives pictures for.
      path: the file; "" leaves the slots as they are.

    Raises:
      UserError: no slot is of classes, or the file is no legend of their classes.
    """
    if path and all(slot.kind != "classes" for slot in slots.values()):
        raise UserError(
            "--legend says which colour of a painted layout is which class, and no such picture is given: give "
            "--mask=<file> too, for a model that reads layouts, or leave it out."
        )
    if not path:
        return dict(slots)
    layouts = {name: slot for name, slot in slots.items() if slot.kind == "classes"}
    known = {name: slot for name, slot in layouts.items() if slot.classes} or layouts  # numbers of objects have none
    read = {name: read_legend(epath.Path(path), slot.classes) for name, slot in known.items()}
    return {**slots, **{name: dataclasses.replace(slots[name], legend=legend) for name, legend in read.items()}}


def begun_slots(shape: tuple[int, int, int]) -> dict[str, Slot]:
    """Returns what a diffusion model reads that begins with a picture of this shape."""
    return {"image": Slot(BEGUN, shape), "mask": Slot(FREE, shape[:2], "mask")}


def matched(
    asked: Files, slots: Mapping[str, Slot], begun: Mapping[str, Slot], others: Sequence[str]
) -> dict[str, Slot]:
    """Returns which slot each entry that the user names is for.

    Args:
      asked: the files; "image" is the model's own entry `image` or `condition` if it reads one, or its set of pictures,
        and else the picture to begin with; "" is the only picture that the model reads.
      slots: the conditions that the model reads from pictures.
      begun: what it reads to begin with a picture; empty where it cannot.
      others: the model's other conditions.

    Raises:
      UserError: the model has no use for an entry; the message says what it reads.
    """
    pictures = [name for name, slot in slots.items() if slot.kind in ("picture", "set")]
    sets = [name for name in pictures if slots[name].kind == "set"]
    own = next((name for name in ("image", "condition", *sets) if name in pictures), "")
    if "" in asked and len(pictures) > 1:
        raise UserError(f"--input has no entry, and this model reads {_listed(pictures)}: give --input=<entry>=<file>.")
    alone = own or "".join(pictures)
    found: dict[str, Slot] = {}
    for name in asked:
        if name in ("", "image") and (alone if not name else own):
            found[name] = slots[alone if not name else own]
        elif name in ("", "image") and begun:
            found[name] = begun["image"]
        elif name in slots:
            found[name] = slots[name]
        elif name == "mask" and begun and not own:
            found[name] = begun["mask"]
        else:
            raise UserError(_no_use(name, slots, begun if not own else {}, others))
    entries = [slot.entry for slot in found.values()]
    if len(set(entries)) < len(entries):
        raise UserError("--input and another flag give the same picture of this model; leave one out.")
    if FREE in entries and BEGUN not in entries:
        raise UserError("--mask says which part of an image is drawn anew: give --image=<file or folder> too.")
    return found


def draws_whole(generator: Generator, entries: Collection[str]) -> bool:
    """Returns whether a model that reads `condition` and `mask` is to draw the whole of a user's picture, as where an
    image is colourised: the picture is given, without a mask, and the model learned to do so.

    Args:
      generator: that of the model.
      entries: the entries that the user gives.

    Raises:
      UserError: the model learned only to draw a part of an image, or a mask is given without its picture.
    """
    both = {"condition", "mask"}
    if not both <= {*generator.held_out.made} & {*generator.method.conditions}:
        return False
    if "mask" in entries and "condition" not in entries:
        raise UserError("--mask says which part of a picture is drawn: give --image=<file or folder> too.")
    if "mask" in entries or "condition" not in entries:
        return False
    if not leaves_nothing_known(generator.corruptions["condition"], image_shape(generator.config)):
        raise UserError(
            "--image: this model draws the unknown part of a picture: give --mask=<file> too, white where it is to be "
            "drawn; or --degrade, which makes a hole in --image."
        )
    return True


def _no_use(name: str, slots: Mapping[str, Slot], begun: Mapping[str, Slot], others: Sequence[str]) -> str:
    flag = f"--{name}" if name in ("image", "mask", "hint") else f"--input={name}" if name else "--input"
    if name in others:
        return f"{flag}: this model's {name} are not read from a picture; {ELSEWHERE.get(name, 'leave it out')}."
    reads = f"it reads {_listed(slots)}" if slots else "it reads no picture as a condition"
    if begun:
        reads += ", and it can begin with --image and keep what is black in --mask"
    elif not slots:
        reads += f", only {_listed(others)}" if others else ""
        reads += ", and only a diffusion model can begin with one"
    guess = f"; {nearest(name, slots)}" if name not in ("", "image", "mask", "hint") and slots else "; leave it out."
    return f"{flag} was given, but this model has no use for it: {reads}{guess}"


def _listed(names: Sequence[str] | Mapping[str, Slot]) -> str:
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else str(last)
