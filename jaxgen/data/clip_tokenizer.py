"""Holds the byte-pair tokenizer of CLIP (Radford et al. 2021), and of Stable Diffusion's text encoders.

Text is brought to Unicode's NFC, lower case and single spaces, cut into words, numerals and punctuation, and each
piece's bytes are joined into entries of a vocabulary; `</w>` marks a piece's end.
"""

from __future__ import annotations

import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import tokenizers
from tokenizers import AddedToken

from jaxgen.data.lost_text import Lost, shown
from jaxgen.data.tokenizer_files import END, START, Read, read_tokenizer_files
from jaxgen.data.word_tokenizer import check_new_word
from jaxgen.errors import UserError

__all__ = ["END", "START", "ClipTokenizer"]

LONGEST = 100_000  # characters of a text; of those past the first hundreds all tokens are cut


class Piece(NamedTuple):
    """Holds one id of a text, and the place of what it stands for: the letters from `first` to `last`."""

    id: int
    token: str
    first: int
    last: int


class ClipTokenizer:
    """Turns texts into token ids.

    Attributes:
      vocabulary: how many ids there are. start, end, pad: the special ids.
      length: how many ids a text has where nothing else is said.
    """

    def __init__(
        self,
        read: Read,
        name: str = "the vocabulary",
        length: int = 77,
        new: Mapping[str, tuple[int, ...]] | None = None,
    ):
        """Args:
          read: the byte-pair encoding and its special tokens. CLIP and Stable Diffusion 1 pad with the end token,
            Stable Diffusion 2 with "!", whose id is 0; as a special token it stands for itself within a text, too.
          name: the files, for messages.
          length: how many ids a text has.
          new: `{word: its ids}` of words that the files do not have; see `with_words`.

        Raises:
          UserError: where the vocabulary lacks start, end or pad.
        """
        self._read, self._tokenizer, self._name, self.length = read, read.tokenizer, name, length
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self.vocabulary = 1 + max(self._tokenizer.get_vocab().values())
        self.start, self.end, self.pad = (self._id(token) for token in (read.start, read.end, read.pad))
        self._unknown = read.unknown
        self.new = dict(new or {})
        self._new = {}  # {id that the package gives: ids that were asked for}
        if self.new:
            self._tokenizer = tokenizers.Tokenizer.from_str(self._tokenizer.to_str())
            self._tokenizer.encode_special_tokens = read.tokenizer.encode_special_tokens
            whole = {word: word[0].isalnum() and word[-1].isalnum() for word in self.new}
            self._tokenizer.add_tokens([AddedToken(word, single_word=whole[word]) for word in self.new])
            self._new = {self._id(word): ids for word, ids in self.new.items()}

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
        for row, pieces in zip(ids, found, strict=True):
            kept = [self.start, *(piece.id for piece in pieces[: length - 2]), self.end]
            row[: len(kept)] = kept
        return ids

    def ids(self, text: str) -> list[int]:
        """Returns the ids of a text, without start and end.

        Raises:
          UserError: a word is unknown, as there can be in a small vocabulary.
        """
        (pieces,) = self._encode(text, 2)[1]
        lost = [text[piece.first : piece.last] for piece in pieces if piece.token == self._unknown]
        if lost:
            raise UserError(f"{self._name} does not know {lost[0]!r}; use another word.")
        return [piece.id for piece in pieces]

    def with_words(self, words: Mapping[str, tuple[int, ...]]) -> ClipTokenizer:
        """Returns a tokenizer that knows more words, in capitals and small letters: each becomes the ids given with it.

        As tokens that are added by transformers, they are found before a text is cut into pieces.

        Raises:
          UserError: a word exists already, or is none.
        """
        if not words:
            return self
        for word in words:
            check_new_word(word)
            entries = (word, word.lower(), f"{word.lower()}</w>")
            if word in self.new or any(self._tokenizer.token_to_id(entry) is not None for entry in entries):
                raise UserError(f"The word {word!r} is in {self._name} already; choose another for what is new.")
        return ClipTokenizer(self._read, self._name, self.length, {**self.new, **words})

    def lost(self, texts: str | Sequence[str], length: int | None = None) -> list[Lost]:
        """Returns what `tokenize` does not keep of each text.

        Raises:
          UserError: as `tokenize`.
        """
        length = self.length if length is None else length
        texts, found = self._encode(texts, length)
        told = []
        for text, pieces in zip(texts, found, strict=True):
            words = [text[piece.first : piece.last] for piece in pieces if piece.token == self._unknown]
            unknown = tuple(word for word in words if word != self._unknown)
            rest = pieces[length - 2 :]
            cut = text[rest[0].first :] if rest else ""
            told.append(Lost(length - 2, len(rest), cut, unknown, bool(unknown) and len(unknown) == len(pieces)))
        return told

    def _encode(self, texts: str | Sequence[str], length: int) -> tuple[list[str], list[list[Piece]]]:
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
        found = self._tokenizer.encode_batch(texts, add_special_tokens=False)
        return texts, [self._pieces(encoding) for encoding in found]

    def _pieces(self, encoding: tokenizers.Encoding) -> list[Piece]:
        return [
            Piece(number, token, *place)
            for given, token, place in zip(encoding.ids, encoding.tokens, encoding.offsets, strict=True)
            for number in self._new.get(given, (given,))
        ]

    def __call__(self, captions: Sequence[str]) -> np.ndarray:
        """Returns int32 `[N, length]`, as the other tokenizers give their ids."""
        return self.tokenize(captions)

    def _id(self, token: str) -> int:
        found = self._tokenizer.token_to_id(token)
        if found is None:
            raise UserError(f"{self._name} has no {token!r}, so it is not one of CLIP.")
        return found
