"""Holds what tokenizers of pieces of words have in common; the package `tokenizers` cuts the texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, NamedTuple, Self

import numpy as np
import tokenizers
from tokenizers import AddedToken

from jaxgen.data.lost_text import Lost, shown
from jaxgen.data.tokenizer_files import Read
from jaxgen.data.word_tokenizer import check_new_word
from jaxgen.errors import UserError

LONGEST = 100_000  # characters of a text; of those past the first hundreds all tokens are cut


class Piece(NamedTuple):
    """Holds one id of a text, whether it stands for something unknown, and the place of that: the letters from `first`
    to `last`.
    """

    id: int
    unknown: bool
    first: int
    last: int


class SubwordTokenizer:
    """Turns texts into token ids: a start token where there is one, the text's tokens, the end token, then padding.

    Attributes:
      model: the model whose tokenizer it is, for messages.
      vocabulary: how many ids there are.
      end, pad: the special ids.
      length: how many ids a text has where nothing else is said.
    """

    model: ClassVar[str]

    def __init__(
        self,
        read: Read,
        name: str = "the vocabulary",
        length: int = 77,
        new: Mapping[str, tuple[int, ...]] | None = None,
    ):
        """Args:
          read: the encoding and its special tokens; as a special token the padding stands for itself within a text,
            too.
          name: the files, for messages.
          length: how many ids a text has.
          new: `{word: its ids}` of words that the files do not have; see `with_words`.

        Raises:
          UserError: where the vocabulary lacks a special token.
        """
        self._read, self._tokenizer, self._name, self.length = read, read.tokenizer, name, length
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self.vocabulary = 1 + max(self._tokenizer.get_vocab().values())
        self._first: tuple[int, ...] = (self._id(read.start),) if read.start else ()
        self.end, self.pad = (self._id(token) for token in (read.end, read.pad))
        self._unknown = self._tokenizer.token_to_id(read.unknown)
        self.new = dict(new or {})
        self._new = {}  # {id that the package gives: ids that were asked for}
        if self.new:
            self._tokenizer = tokenizers.Tokenizer.from_str(self._tokenizer.to_str())
            self._tokenizer.encode_special_tokens = read.tokenizer.encode_special_tokens
            whole = {word: word[0].isalnum() and word[-1].isalnum() for word in self.new}
            self._tokenizer.add_tokens([AddedToken(word, single_word=whole[word]) for word in self.new])
            self._new = {self._id(word): ids for word, ids in self.new.items()}

    def __eq__(self, other: object) -> bool:
        """Returns whether another tokenizer gives the same ids."""
        return isinstance(other, SubwordTokenizer) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def _key(self) -> tuple[object, ...]:
        special = (self._first, self.end, self.pad, self._read.tokenizer.encode_special_tokens)
        return type(self), self._read.tokenizer.to_str(), special, self.length, tuple(self.new.items())

    def tokenize(self, texts: str | Sequence[str], length: int | None = None) -> np.ndarray:
        """Returns int32 `[N, length]`.

        A text that is too long loses its last tokens, but never its end token; `lost` says which.

        Raises:
          UserError: for a length without room for a token, a text of more than LONGEST characters, or anything but
            text.
        """
        length = self.length if length is None else length
        texts, found = self._encode(texts, length)
        ids = np.full((len(texts), length), self.pad, np.int32)
        for row, pieces in zip(ids, found, strict=True):
            kept = [*self._first, *(piece.id for piece in pieces[: self._room(length)]), self.end]
            row[: len(kept)] = kept
        return ids

    def ids(self, text: str) -> list[int]:
        """Returns the ids of a text, without start and end.

        Raises:
          UserError: a word is unknown, as there can be in a small vocabulary.
        """
        (pieces,) = self._encode(text, self.length)[1]
        lost = [text[piece.first : piece.last] for piece in pieces if piece.unknown]
        if lost:
            raise UserError(f"{self._name} does not know {lost[0]!r}; use another word.")
        return [piece.id for piece in pieces]

    def with_words(self, words: Mapping[str, tuple[int, ...]]) -> Self:
        """Returns a tokenizer that knows more words: each becomes the ids given with it.

        As tokens that are added by transformers, they are found before a text is cut into pieces, and as the texts'
        letters are: in capitals and small letters where these are one to the vocabulary.

        Raises:
          UserError: a word exists already, or is none.
        """
        if not words:
            return self
        for word in words:
            check_new_word(word)
            entries = self._spelled(word)
            if word in self.new or any(self._tokenizer.token_to_id(entry) is not None for entry in entries):
                raise UserError(f"The word {word!r} is in {self._name} already; choose another for what is new.")
        return type(self)(self._read, self._name, self.length, {**self.new, **words})

    def lost(self, texts: str | Sequence[str], length: int | None = None) -> list[Lost]:
        """Returns what `tokenize` does not keep of each text.

        Raises:
          UserError: as `tokenize`.
        """
        length = self.length if length is None else length
        texts, found = self._encode(texts, length)
        told, room = [], self._room(length)
        for text, pieces in zip(texts, found, strict=True):
            words = [text[piece.first : piece.last] for piece in pieces if piece.unknown]
            unknown = tuple(word for word in words if word != self._read.unknown)
            rest = pieces[room:]
            cut = text[rest[0].first :] if rest else ""
            told.append(Lost(room, len(rest), cut, unknown, bool(unknown) and len(unknown) == len(pieces)))
        return told

    def decode(self, ids: Sequence[int]) -> str:
        """Returns the text of one row of ids up to its end, without start, padding and words that were added."""
        kept = [int(number) for number in ids]
        kept = kept[: kept.index(self.end)] if self.end in kept else kept
        special = {*self._first, self.pad}
        return self._tokenizer.decode([number for number in kept if number not in special]).strip()

    def __call__(self, captions: Sequence[str]) -> np.ndarray:
        """Returns int32 `[N, length]`, as the other tokenizers give their ids."""
        return self.tokenize(captions)

    def _spelled(self, word: str) -> tuple[str, ...]:
        """Returns the entries of the vocabulary that would stand for the whole word."""
        raise NotImplementedError

    def _room(self, length: int) -> int:
        """Returns how many of `length` ids are left beside start and end."""
        return length - len(self._first) - 1

    def _encode(self, texts: str | Sequence[str], length: int) -> tuple[list[str], list[list[Piece]]]:
        texts = [texts] if isinstance(texts, str) else list(texts)
        if self._room(length) < 0:
            least = len(self._first) + 1
            ends = f"its start and end alone take {least} tokens" if self._first else "its end alone takes 1 token"
            raise UserError(f"a text's length is {length}, but {ends}.")
        for text in texts:
            if not isinstance(text, str):
                raise UserError(f"{self.model}'s tokenizer reads texts, not {type(text).__name__}.")
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
            Piece(number, given == self._unknown, *place)
            for given, place in zip(encoding.ids, encoding.offsets, strict=True)
            for number in self._new.get(given, (given,))
        ]

    def _id(self, token: str) -> int:
        found = self._tokenizer.token_to_id(token)
        if found is None:
            raise UserError(f"{self._name} has no {token!r}, so it is not one of {self.model}.")
        return found
