"""Holds the byte-pair tokenizer of CLIP (Radford et al. 2021), and of Stable Diffusion's text encoders.

Text is brought to Unicode's NFC, lower case and single spaces, cut into words, numerals and punctuation, and each
piece's bytes are joined into entries of a vocabulary; `</w>` marks a piece's end.
"""

from __future__ import annotations

import os
import pathlib
from collections.abc import Sequence

import numpy as np
import tokenizers

from jaxgen.data.lost_text import Lost, shown
from jaxgen.data.tokenizer_files import END, START, Read, read_tokenizer_files
from jaxgen.errors import UserError

__all__ = ["END", "START", "ClipTokenizer"]

LONGEST = 100_000  # characters of a text; of those past the first hundreds all tokens are cut


class ClipTokenizer:
    """Turns texts into token ids.

    Attributes:
      vocabulary: how many ids there are. start, end, pad: the special ids.
      length: how many ids a text has where nothing else is said.
    """

    def __init__(self, read: Read, name: str = "the vocabulary", length: int = 77):
        """Args:
          read: the byte-pair encoding and its special tokens. CLIP and Stable Diffusion 1 pad with the end token,
            Stable Diffusion 2 with "!", whose id is 0; as a special token it stands for itself within a text, too.
          name: the files, for messages.
          length: how many ids a text has.

        Raises:
          UserError: where the vocabulary lacks start, end or pad.
        """
        self._tokenizer, self._name, self.length = read.tokenizer, name, length
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self.vocabulary = 1 + max(self._tokenizer.get_vocab().values())
        self.start, self.end, self.pad = (self._id(token) for token in (read.start, read.end, read.pad))
        self._unknown = read.unknown

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

    def tokenize(self, texts: str | Sequence[str], length: int | None = None) -> np.ndarray:
        """Returns int32 `[N, length]`: the start token, the text's tokens, the end token, then padding.

        A text that is too long loses its last tokens, but never its end token; `lost` says which.

        Raises:
          UserError: for a length below 2, a text of more than LONGEST characters, or anything but text.
        """
        length = self.length if length is None else length
        texts, found = self._encode(texts, length)
        ids = np.full((len(texts), length), self.pad, np.int32)
        for row, encoding in zip(ids, found, strict=True):
            kept = [self.start, *encoding.ids[: length - 2], self.end]
            row[: len(kept)] = kept
        return ids

    def lost(self, texts: str | Sequence[str], length: int | None = None) -> list[Lost]:
        """Returns what `tokenize` does not keep of each text.

        Raises:
          UserError: as `tokenize`.
        """
        length = self.length if length is None else length
        texts, found = self._encode(texts, length)
        told = []
        for text, encoding in zip(texts, found, strict=True):
            places = list(zip(encoding.tokens, encoding.offsets, strict=True))
            words = [text[first:last] for token, (first, last) in places if token == self._unknown]
            unknown = tuple(word for word in words if word != self._unknown)
            rest = encoding.offsets[length - 2 :]
            told.append(
                Lost(
                    length - 2,
                    len(rest),
                    text[rest[0][0] :] if rest else "",
                    unknown,
                    bool(unknown) and len(unknown) == len(places),
                )
            )
        return told

    def _encode(self, texts: str | Sequence[str], length: int) -> tuple[list[str], list[tokenizers.Encoding]]:
        texts = [texts] if isinstance(texts, str) else list(texts)
        if length < 2:
            raise UserError(f"a text's length is {length}, but its start and end alone take 2 tokens.")
        for text in texts:
            if not isinstance(text, str):
                raise UserError(f"CLIP's tokenizer reads texts, not {type(text).__name__}.")
            if len(text) > LONGEST:
                raise UserError(
                    f"the text {shown(text)} has {len(text):,} characters, where at most {LONGEST:,} are read; "
                    "shorten it, or is it another file than that of the texts?"
                )
            if any("\ud800" <= letter <= "\udfff" for letter in text):
                raise UserError(f"the text {text!r} holds half a character, which UTF-8 does not have; correct it.")
        return texts, self._tokenizer.encode_batch(texts, add_special_tokens=False)

    def __call__(self, captions: Sequence[str]) -> np.ndarray:
        """Returns int32 `[N, length]`, as the other tokenizers give their ids."""
        return self.tokenize(captions)

    def _id(self, token: str) -> int:
        found = self._tokenizer.token_to_id(token)
        if found is None:
            raise UserError(f"{self._name} has no {token!r}, so it is not one of CLIP.")
        return found
