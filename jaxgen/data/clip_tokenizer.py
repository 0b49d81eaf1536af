"""Holds the byte-pair tokenizer of CLIP (Radford et al. 2021), and of Stable Diffusion's text encoders.

Text is brought to Unicode's NFC, lower case and single spaces, cut into words, numerals and punctuation, and each
piece's bytes are joined into entries of a vocabulary; `</w>` marks a piece's end.
"""

from __future__ import annotations

import os
import pathlib
from collections.abc import Mapping

from jaxgen.data.subwords.base import LONGEST, Piece, SubwordTokenizer
from jaxgen.data.tokenizer_files import END, START, Read, read_tokenizer_files
from jaxgen.errors import UserError

__all__ = ["END", "LONGEST", "START", "ClipTokenizer", "Piece"]


class ClipTokenizer(SubwordTokenizer):
    """Turns texts into token ids: the start token, the text's tokens, the end token, then padding.

    CLIP and Stable Diffusion 1 pad with the end token, Stable Diffusion 2 with "!", whose id is 0.

    Attributes:
      vocabulary: how many ids there are. start, end, pad: the special ids.
      length: how many ids a text has where nothing else is said.
    """

    model = "CLIP"

    def __init__(
        self,
        read: Read,
        name: str = "the vocabulary",
        length: int = 77,
        new: Mapping[str, tuple[int, ...]] | None = None,
    ):
        """The arguments and the error are those of `SubwordTokenizer`."""
        super().__init__(read, name, length, new)
        self.start = self._first[0]

    @classmethod
    def from_folder(cls, folder: str | os.PathLike[str], pad: str = "", length: int = 77) -> ClipTokenizer:
        """Returns the tokenizer of a folder with `tokenizer.json`, or `vocab.json` and `merges.txt`, and its settings.

        Args:
          pad: the padding token; by default what the folder's settings say, or the end token.
          length: how many ids a text has.

        Raises:
          UserError: for a file that is missing or damaged.
        """
        return cls(read_tokenizer_files(pathlib.Path(folder), pad=pad), f"the tokenizer in {folder}", length)

    @classmethod
    def from_file(cls, file: str | os.PathLike[str], pad: str = "") -> ClipTokenizer:
        """From a `tokenizer.json` of any name, and the settings beside it, if there are any.

        Raises:
          UserError: for a file that is missing or damaged.
        """
        path = pathlib.Path(file)
        if not path.is_file():
            raise UserError(f"There is no file {path} with a tokenizer.")
        return cls(read_tokenizer_files(path.parent, path, pad), str(path))

    def _spelled(self, word: str) -> tuple[str, ...]:
        return word, word.lower(), f"{word.lower()}</w>"
