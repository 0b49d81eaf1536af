"""Holds the tokenizer of T5 (Raffel et al. 2020): the most likely pieces of a text under a unigram model."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Mapping

from jaxgen.data.clip_tokenizer import ClipTokenizer
from jaxgen.data.subwords.base import SubwordTokenizer
from jaxgen.data.subwords.t5_files import SPACE, SPIECE, is_t5, read_t5_files
from jaxgen.data.tokenizer_files import FILES, Read
from jaxgen.data.word_tokenizer import WordTokenizer
from jaxgen.errors import UserError
from jaxgen.files import read_text

LENGTH = 128  # tokens of a text in Imagen
WORDS = "words.json"  # a vocabulary of whole words, as a published run has it
TOKENIZER_FILES = (SPIECE, *FILES)  # of a folder of T5 or CLIP


class T5Tokenizer(SubwordTokenizer):
    """Turns texts into token ids: the text's tokens, the end token 1, then the padding 0. Capitals count."""

    model = "T5"

    def __init__(
        self,
        read: Read,
        name: str = "the vocabulary",
        length: int = LENGTH,
        new: Mapping[str, tuple[int, ...]] | None = None,
    ):
        """The arguments and the error are those of `SubwordTokenizer`."""
        super().__init__(read, name, length, new)

    @classmethod
    def from_folder(cls, folder: str | os.PathLike[str], length: int = LENGTH) -> T5Tokenizer:
        """Returns the tokenizer of a folder with `tokenizer.json` or `spiece.model`.

        Raises:
          UserError: for a file that is missing or damaged, or one of another tokenizer.
        """
        return cls(read_t5_files(pathlib.Path(folder)), f"the tokenizer in {folder}", length)

    def _spelled(self, word: str) -> tuple[str, ...]:
        return word, SPACE + word


def open_tokenizer(folder: str | os.PathLike[str], length: int = 0) -> ClipTokenizer | T5Tokenizer | WordTokenizer:
    """Returns the tokenizer of a folder, which is one of T5, one of CLIP, or a vocabulary of whole words.

    Args:
      length: how many ids a text has; 0 for what is usual, 128 for T5 and 77 for CLIP; a vocabulary has its own.

    Raises:
      UserError: the folder holds none, or a file is damaged.
    """
    folder = pathlib.Path(folder)
    if not folder.is_dir():
        raise UserError(f"There is no folder {folder} with a tokenizer.")
    if (folder / WORDS).is_file():
        return WordTokenizer.from_json(read_text(folder / WORDS), str(folder / WORDS))
    if is_t5(folder):
        return T5Tokenizer.from_folder(folder, length or LENGTH)
    return ClipTokenizer.from_folder(folder, length=length or 77)
