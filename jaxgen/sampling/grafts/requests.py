"""Reads what --adapter says: the kind of a file, its path, and how it is put on. Nothing is opened or imported."""

from __future__ import annotations

import dataclasses
import math

from jaxgen.errors import UserError, nearest

KINDS = {
    "lora": "lora:FILE[:scale]",
    "embedding": "embedding:FILE[:word]",
    "custom_diffusion": "custom_diffusion:FILE",
    "controlnet": "controlnet:FOLDER[:scale]",
    "motion": "motion:FOLDER[:frames]",
}


@dataclasses.dataclass(frozen=True)
class Adapter:
    """Names a file of a small part that is put on a trained model as it is.

    Attributes:
      kind: "lora", low-rank updates, "embedding", the vectors of a new word, "custom_diffusion", keys and values of
        attentions, "controlnet", a network that reads a hint, or "motion", temporal layers that make videos.
      file: the file, or a folder with a file of the usual name.
      scale: what low-rank updates, or what a ControlNet adds, are multiplied by.
      word: the new word, in place of the one that the file says; "" keeps that.
      frames: the number of frames of a video, for temporal layers.
    """

    kind: str
    file: str
    scale: float = 1.0
    word: str = ""
    frames: int = 16

    def __str__(self) -> str:
        return f"--adapter={self.kind}:{self.file}"


def read_adapter(text: str) -> Adapter:
    """Returns the adapter that a text such as "lora:FILE:0.5" means.

    A last part that is a number is a scale, and one that has neither "/" nor "." is a word; for
    temporal layers a whole number is that of frames. Anything else belongs to the path.

    Raises:
      UserError: the kind is unknown, or there is no file, or the word has a space in it.
    """
    kind, _, rest = text.partition(":")
    if kind not in KINDS:
        raise UserError(
            f"--adapter={text}: {kind!r} is no kind of adapter; {nearest(kind, KINDS)} Write --adapter="
            f"{' or --adapter='.join(KINDS.values())}."
        )
    file, _, last = rest.rpartition(":")
    if kind in ("lora", "controlnet") and file and _is_number(last):
        return Adapter(kind, file, scale=float(last))
    if kind == "motion" and file and last.isdecimal() and last.isascii():
        return Adapter(kind, file, frames=int(last))
    if kind == "embedding" and file and last and not {"/", "."} & {*last}:
        if last.split() != [last]:
            raise UserError(f"--adapter={text}: the word {last!r} has a space in it; choose one such as '<cat-toy>'.")
        return Adapter(kind, file, word=last)
    if not rest:
        raise UserError(f"--adapter={text} names no file; write --adapter={KINDS[kind]}.")
    return Adapter(kind, rest)


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False
