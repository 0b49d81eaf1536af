"""Turns captions into numbers by a vocabulary of whole words, for captions of a small language.

The id 0 is padding (`PAD`), 1 ends a caption (`END`), and 2 is any unknown word (`UNKNOWN`). The known words have
the ids from 3 on. An empty caption is `END` alone.
"""

from __future__ import annotations

import collections
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, TypedDict

import msgspec
import numpy as np

from jaxgen.data.lost_text import Lost
from jaxgen.errors import UserError, nearest
from jaxgen.files import parse_json

PAD, END, UNKNOWN, FIRST = 0, 1, 2, 3
LONGEST = 65536  # tokens of a caption
BEFORE, AFTER = r"(?<!\w)", r"(?!\w)"  # there is no letter or digit before, or after
WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)*")


class Vocabulary(TypedDict):
    """Is what the file of a vocabulary holds."""

    words: list[str]
    length: Annotated[int, msgspec.Meta(ge=2, le=LONGEST)]
    strict: bool


class WordTokenizer:
    """Turns captions into int32 ids `[N, length]`.

    Attributes:
      words: the words of the vocabulary; word i has the id 3 + i.
      length: the number of ids of every caption, with its end.
      strict: whether an unknown word raises a UserError that names it; if not, its id is 2.
      new: `{word: its ids}` of words that are found before a caption is cut into words, such as "<cat-toy>".
    """

    def __init__(
        self, words: Sequence[str], length: int, strict: bool = False, new: Mapping[str, tuple[int, ...]] | None = None
    ):
        if length < 2 or len(set(words)) != len(words):
            raise UserError("A vocabulary has each word once, and captions room for two tokens at least.")
        self.words, self.length, self.strict = tuple(words), length, strict
        self._ids = {word: FIRST + i for i, word in enumerate(words)}
        self.new = {word.lower(): numbers for word, numbers in (new or {}).items()}
        self._pieces = new_words_pattern(self.new)

    @classmethod
    def of(cls, captions: Iterable[str], length: int, least: int = 1) -> WordTokenizer:
        """Makes a vocabulary of the words that occur at least `least` times in captions.

        The most frequent word comes first; words of equal frequency are in alphabetical order.
        """
        counts = collections.Counter(word for caption in captions for word in split(caption))
        kept = [word for word, count in counts.items() if count >= least]
        return cls(sorted(kept, key=lambda word: (-counts[word], word)), length)

    def __eq__(self, other: object) -> bool:
        """Returns whether another tokenizer gives the same ids."""
        return isinstance(other, WordTokenizer) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def _key(self) -> tuple[object, ...]:
        return self.words, self.length, self.strict, tuple(self.new.items())

    @property
    def size(self) -> int:
        """Returns how many ids there are."""
        return FIRST + len(self.words)

    def __call__(self, captions: Sequence[str]) -> np.ndarray:
        """Returns ids int32 `[N, length]`; "" is the empty caption, and one that is too long loses its last words.

        Raises:
          UserError: for an unknown word, where `strict` is set.
        """
        ids = np.full((len(captions), self.length), PAD, np.int32)
        for row, caption in zip(ids, captions, strict=True):
            found = [number for _, word in self._places(str(caption).lower()) for number in self._numbers(word)]
            found = found[: self.length - 1]
            row[: len(found) + 1] = [*found, END]
        return ids

    def ids(self, text: str) -> list[int]:
        """Returns the ids of a text's words, without the end.

        Raises:
          UserError: a word is unknown.
        """
        words = [word for _, word in self._places(text.lower())]
        for word in words:
            if word not in self._ids and word not in self.new:
                raise UserError(f"the word {word!r} is not in the captions' vocabulary; {nearest(word, self.words)}")
        return [number for word in words for number in self._numbers(word)]

    def with_words(self, words: Mapping[str, tuple[int, ...]]) -> WordTokenizer:
        """Returns a tokenizer that knows more words, in capitals and small letters: each becomes the ids given with it.

        Raises:
          UserError: a word exists already, or is none.
        """
        if not words:
            return self
        for word in words:
            check_new_word(word)
            if word.lower() in {*self.new, *self._ids}:
                raise UserError(f"The word {word!r} is in the vocabulary already; choose another for what is new.")
        return WordTokenizer(self.words, self.length, self.strict, {**self.new, **words})

    def lost(self, captions: Sequence[str]) -> list[Lost]:
        """Returns what the ids do not keep of each caption: words that are unknown, and those that are cut off."""
        room, found = self.length - 1, []
        for caption in captions:
            text = str(caption).lower()
            places = [(start, word) for start, word in self._places(text) for _ in self._numbers(word, strict=False)]
            words = [word for _, word in places]
            unknown = tuple(word for word in words if word not in self._ids and word not in self.new)
            rest = places[room:]
            cut = text[rest[0][0] :] if rest else ""
            found.append(Lost(room, len(rest), cut, unknown, bool(text.strip()) and len(unknown) == len(words)))
        return found

    def _places(self, caption: str) -> list[tuple[int, str]]:
        """Returns `(where it begins, word)` of the words of a caption in small letters."""
        found, last = [], 0
        for new in [*self._pieces.finditer(caption), None] if self._pieces else [None]:
            between = caption[last : new.start() if new else len(caption)]
            found += [(last + word.start(), word.group()) for word in WORD.finditer(between)]
            if new:
                found.append((new.start(), new.group()))
                last = new.end()
        return found

    def decode(self, ids: Sequence[int]) -> str:
        """Returns the words of one caption up to its end, with "?" for unknown ones."""
        words = []
        for number in ids:
            if number in (PAD, END):
                break
            words.append("?" if number == UNKNOWN else self.words[int(number) - FIRST])
        return " ".join(words)

    def to_json(self) -> str:
        """Returns the vocabulary as JSON, for `from_json`."""
        return json.dumps({"words": self.words, "length": self.length, "strict": self.strict}, indent=1)

    @classmethod
    def from_json(cls, text: str, where: str = "the vocabulary") -> WordTokenizer:
        """Returns the tokenizer of a vocabulary.

        Args:
          where: the file, for messages.

        Raises:
          UserError: for a text that is no vocabulary.
        """
        content = parse_json(text, where, Vocabulary)
        return cls(content["words"], content["length"], content["strict"])

    def _numbers(self, word: str, strict: bool | None = None) -> tuple[int, ...]:
        """Returns the ids of a word of `_places`."""
        if word in self.new:
            return self.new[word]
        if word not in self._ids and (self.strict if strict is None else strict):
            raise UserError(f"The word {word!r} is not in the captions' vocabulary; {nearest(word, self.words)}")
        return (self._ids.get(word, UNKNOWN),)


def split(caption: str) -> list[str]:
    """Returns a caption's words: runs of letters, digits and apostrophes, in small letters."""
    return WORD.findall(caption.lower())


def check_new_word(word: str) -> None:
    """Raises a UserError for a text that cannot be a new word: it is empty, or has a space in it."""
    if not word or word.split() != [word]:
        raise UserError(f"The new word {word!r} is empty or has a space in it; choose one such as '<cat-toy>'.")


def new_words_pattern(words: Iterable[str]) -> re.Pattern[str] | None:
    """Returns an expression that finds new words in a text, the longest first; None where there are none.

    A word that begins or ends with a letter or a digit is not found within a longer word.
    """
    spelled = sorted(words, key=len, reverse=True)
    bounded = [f"{BEFORE if w[0].isalnum() else ''}{re.escape(w)}{AFTER if w[-1].isalnum() else ''}" for w in spelled]
    return re.compile("|".join(bounded)) if bounded else None
