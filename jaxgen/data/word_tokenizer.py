"""Turns captions into numbers by a vocabulary of whole words, for captions of a small language.

The id 0 is padding (`PAD`), 1 ends a caption (`END`), and 2 is any unknown word (`UNKNOWN`). The known words have
the ids from 3 on. An empty caption is `END` alone.
"""

from __future__ import annotations

import collections
import json
import re
from collections.abc import Iterable, Sequence
from typing import Annotated, TypedDict

import msgspec
import numpy as np

from jaxgen.data.lost_text import Lost
from jaxgen.errors import UserError, nearest
from jaxgen.files import parse_json

PAD, END, UNKNOWN, FIRST = 0, 1, 2, 3
LONGEST = 65536  # tokens of a caption
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
    """

    def __init__(self, words: Sequence[str], length: int, strict: bool = False):
        if length < 2 or len(set(words)) != len(words):
            raise UserError("A vocabulary has each word once, and captions room for two tokens at least.")
        self.words, self.length, self.strict = tuple(words), length, strict
        self._ids = {word: FIRST + i for i, word in enumerate(words)}

    @classmethod
    def of(cls, captions: Iterable[str], length: int, least: int = 1) -> WordTokenizer:
        """Makes a vocabulary of the words that occur at least `least` times in captions.

        The most frequent word comes first; words of equal frequency are in alphabetical order.
        """
        counts = collections.Counter(word for caption in captions for word in split(caption))
        kept = [word for word, count in counts.items() if count >= least]
        return cls(sorted(kept, key=lambda word: (-counts[word], word)), length)

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
            found = [self._id(word) for word in split(str(caption))][: self.length - 1]
            row[: len(found) + 1] = [*found, END]
        return ids

    def lost(self, captions: Sequence[str]) -> list[Lost]:
        """Returns what the ids do not keep of each caption: words that are unknown, and those that are cut off."""
        room, found = self.length - 1, []
        for caption in captions:
            places = list(WORD.finditer(str(caption).lower()))
            words = [place.group() for place in places]
            unknown = tuple(word for word in words if word not in self._ids)
            rest = places[room:]
            text = str(caption).lower()[rest[0].start() :] if rest else ""
            found.append(Lost(room, len(rest), text, unknown, bool(words) and len(unknown) == len(words)))
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

    def _id(self, word: str) -> int:
        if word not in self._ids and self.strict:
            raise UserError(f"The word {word!r} is not in the captions' vocabulary; {nearest(word, self.words)}")
        return self._ids.get(word, UNKNOWN)


def split(caption: str) -> list[str]:
    """Returns a caption's words: runs of letters, digits and apostrophes, in small letters."""
    return WORD.findall(caption.lower())
