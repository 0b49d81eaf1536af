"""A legend says which class each colour, or each number, of a painted layout is.

It is a text file with a line for each colour, `<colour> <class> <name>`, where the name is for readers and may be left
out. A colour is `#rrggbb`, or three levels `r,g,b`. For pictures whose grey levels or palette indices are meant, it is
a single number, in every line of the file. Several colours may be of one class. Empty lines, and lines that begin with
`//`, say nothing:

    // colours of my painting program
    #4682b4 0 sky
    #804080 3 road
"""

from __future__ import annotations

import dataclasses
import re

import numpy as np
from etils import epath
from jaxtyping import Int
from PIL import Image

from jaxgen.data.images import decode_colours, decode_mask, fit
from jaxgen.errors import UserError, shown
from jaxgen.files import read_text, text_lines

COMMENT = "//"


@dataclasses.dataclass(frozen=True)
class Legend:
    """Holds what a legend says.

    Attributes:
      where: the file, for messages.
      colours: `{colour: class}`; a colour is 65536 red + 256 green + blue, or a number in [0, 256).
      numbers: whether the file has numbers in place of colours.
    """

    where: str
    colours: dict[int, int]
    numbers: bool

    def decode(self, data: bytes, resolution: tuple[int, int], where: str) -> Int[np.ndarray, "H W"]:
        """Returns the class of each pixel of an encoded picture, int32, cropped and resized as `decode_mask` does.

        Raises:
          UserError: the picture is damaged, or has a colour that is not in the legend; `where` names it.
        """
        if self.numbers:
            codes = decode_mask(data, None, where, True, f"the legend {self.where} has numbers: give one of colours")
        else:
            codes = _codes(decode_colours(data, where))
        known = np.array(sorted(self.colours))
        unknown = ~np.isin(codes, known)
        if unknown.any():
            raise UserError(self._unknown(codes, unknown, where))
        classes = np.array([self.colours[int(code)] for code in known], np.uint8)[np.searchsorted(known, codes)]
        return fit(Image.fromarray(classes), resolution, Image.Resampling.NEAREST)[..., 0].astype(np.int32)

    def _unknown(self, codes: np.ndarray, unknown: np.ndarray, where: str) -> str:
        row, column = (int(i) for i in np.argwhere(unknown)[0])
        code, count = int(codes[row, column]), int(unknown.sum())
        known = np.array(list(self.colours))
        nearest = int(known[np.square(_rgb(known) - _rgb(np.array([code]))).sum(axis=-1).argmin()])
        pixels = "a pixel" if count == 1 else f"{count} pixels"
        return (
            f"{where} has {pixels} that the legend {self.where} does not know, such as {self.spell(code)} in row "
            f"{row}, column {column}; the nearest it has is {self.spell(nearest)}, class {self.colours[nearest]}: add "
            "a line for it, or paint without smooth edges and save without loss, as PNG."
        )

    def spell(self, code: int) -> str:
        """Returns a colour as the file has it."""
        return str(code) if self.numbers else f"#{code:06x}"


def _codes(colours: np.ndarray) -> np.ndarray:
    """Returns one number for each colour `[..., 3]`."""
    return colours.astype(np.int64) @ np.array([65536, 256, 1])


def _rgb(codes: np.ndarray) -> np.ndarray:
    """Returns the colours `[N, 3]` of numbers `[N]`."""
    return np.stack([codes >> 16, codes >> 8 & 255, codes & 255], axis=-1)


def read_legend(path: epath.Path, classes: int) -> Legend:
    """Returns the legend of a file.

    Args:
      path: the file.
      classes: how many classes there are; 0 where that is not known.

    Raises:
      UserError: the file cannot be read, a line is no colour and class, a class is not in [0, classes), a colour has
        two classes, or colours and numbers are mixed.
    """
    found: dict[int, int] = {}
    kinds: set[bool] = set()
    for number, line in enumerate(text_lines(read_text(path, "--legend")), start=1):
        if not line.strip() or line.lstrip().startswith(COMMENT):
            continue
        where = f"line {number} of {path}"
        words = line.split(maxsplit=2)
        code, numeric = _colour(words[0], where)
        if len(words) < 2 or not words[1].isdecimal():
            raise UserError(
                f"{where}, {shown(line.strip())}, gives no class: write a colour and the number of a class, such as "
                "'#4682b4 0 sky'."
            )
        kinds.add(numeric)
        label = int(words[1])
        if classes and label >= classes:
            raise UserError(f"{where} has class {label}, and this model knows 0 to {classes - 1}; correct it.")
        if found.setdefault(code, label) != label:
            raise UserError(f"{where} gives {words[0]} the class {label}, and a line above {found[code]}; keep one.")
    if not found:
        raise UserError(f"--legend={path} has no colours: write lines such as '#4682b4 0 sky'.")
    if len(kinds) > 1:
        raise UserError(f"--legend={path} has colours and numbers: write all in one way.")
    return Legend(str(path), found, kinds == {True})


def _colour(word: str, where: str) -> tuple[int, bool]:
    """Returns a colour as one number, and whether it was written as one."""
    if re.fullmatch(r"#[0-9a-fA-F]{6}", word):
        return int(word[1:], 16), False
    levels = word.split(",")
    if len(levels) in (1, 3) and all(re.fullmatch(r"[0-9]{1,3}", level) and int(level) < 256 for level in levels):
        return (int(word), True) if len(levels) == 1 else (int(_codes(np.array(levels, np.int64))), False)
    raise UserError(
        f"{where} begins with {shown(word)}, which is no colour: write #rrggbb, three levels such as 70,130,180, or "
        "one level or index in [0, 256)."
    )


def legend_text(colours: np.ndarray) -> str:
    """Returns the text of a legend in which class i has colour i of uint8 `[K, 3]`."""
    return "".join(f"#{int(code):06x} {i}\n" for i, code in enumerate(_codes(colours)))
