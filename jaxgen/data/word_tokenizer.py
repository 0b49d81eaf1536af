"""Captions as numbers by a vocabulary of whole words, for captions of a small language.

Ids: 0 fills up (`PAD`), 1 ends a caption (`END`) and is all of an empty one, 2 is any word that is not known
(`UNKNOWN`), and words begin at 3.
"""

from __future__ import annotations

import collections
import json
import re
from collections.abc import Iterable, Sequence

import numpy as np

from jaxgen.errors import UserError, nearest

PAD, END, UNKNOWN, FIRST = 0, 1, 2, 3


class WordTokenizer:
    """Captions -> int32 ids `[N, length]`.

    Attributes:
      words: of the vocabulary; word i has the id 3 + i. length: ids of every caption, its end among them.
      strict: an unknown word raises a UserError that names it; else its id is 2.
    """

    def __init__(self, words: Sequence[str], length: int, strict: bool = False):
        if length < 2 or len(set(words)) != len(words):
            raise UserError("A vocabulary has each word once, and captions room for two tokens at least.")
        self.words, self.length, self.strict = tuple(words), length, strict
        self._ids = {word: FIRST + i for i, word in enumerate(words)}

    @classmethod
    def of(cls, captions: Iterable[str], length: int, least: int = 1) -> WordTokenizer:
        """The words that occur in captions, `least` times or more, the most frequent first, then by alphabet."""
        counts = collections.Counter(word for caption in captions for word in split(caption))
        kept = [word for word, count in counts.items() if count >= least]
        return cls(sorted(kept, key=lambda word: (-counts[word], word)), length)

    @property
    def size(self) -> int:
        """How many ids there are."""
        return FIRST + len(self.words)

    def __call__(self, captions: Sequence[str]) -> np.ndarray:
        """int32 `[N, length]`; "" is the empty caption, and of one that is too long the first words are kept.

        Raises:
          UserError: for an unknown word, where `strict` is set.
        """
        ids = np.full((len(captions), self.length), PAD, np.int32)
        for row, caption in zip(ids, captions, strict=True):
            found = [self._id(word) for word in split(str(caption))][: self.length - 1]
            row[: len(found) + 1] = [*found, END]
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """The words of one caption up to its end; unknown ones as "?"."""
        words = []
        for number in ids:
            if number in (PAD, END):
                break
            words.append("?" if number == UNKNOWN else self.words[int(number) - FIRST])
        return " ".join(words)

    def to_json(self) -> str:
        """For `from_json`."""
        return json.dumps({"words": self.words, "length": self.length, "strict": self.strict}, indent=1)

    @classmethod
    def from_json(cls, text: str) -> WordTokenizer:
        """Raises a UserError for a text that is no vocabulary."""
        try:
            content = json.loads(text)
            return cls([str(word) for word in content["words"]], int(content["length"]), bool(content["strict"]))
        except (ValueError, KeyError, TypeError) as error:
            wanted = '{"words": [...], "length": ..., "strict": ...}'
            raise UserError(f"This is no vocabulary: {wanted} is needed.") from error

    def _id(self, word: str) -> int:
        if word not in self._ids and self.strict:
            raise UserError(f"The word {word!r} is not in the captions' vocabulary; {nearest(word, self.words)}")
        return self._ids.get(word, UNKNOWN)


def split(caption: str) -> list[str]:
    """A caption's words: runs of letters, digits and apostrophes, in small letters."""
    return re.findall(r"[^\W_]+(?:'[^\W_]+)*", caption.lower())
