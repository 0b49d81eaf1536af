"""Says what a tokenizer could not keep of a text: tokens that were cut off, and words that it does not know."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

MOST = 60  # characters of a text that are shown


@dataclasses.dataclass(frozen=True)
class Lost:
    """Says what of one text is not in its tokens.

    Attributes:
      room: how many tokens a text has room for, without those that begin and end it.
      cut: how many tokens were cut off.
      text: the text that was cut off.
      unknown: the words that were replaced by the token of unknown ones, in their order.
      all_unknown: whether the text is not empty, and has no word that is known.
    """

    room: int
    cut: int = 0
    text: str = ""
    unknown: tuple[str, ...] = ()
    all_unknown: bool = False

    def __bool__(self) -> bool:
        return bool(self.cut or self.unknown)

    def told(self, name: str) -> str:
        """Returns one sentence for a text that is called `name`, such as "prompt 2"; "" where nothing was lost."""
        parts = []
        if self.cut:
            some = "token" if self.cut == 1 else "tokens"
            parts.append(f"{self.cut} {some} past {self.room} are cut: {shown(self.text)}")
        if self.unknown:
            parts.append(f"not in the vocabulary: {', '.join(map(repr, dict.fromkeys(self.unknown)))}")
        return f"{name}: {'; '.join(parts)}." if parts else ""


def shown(text: str) -> str:
    """Returns a text in quotes, shortened in its middle where it is long."""
    return repr(text if len(text) <= MOST else f"{text[: MOST // 2]}...{text[-MOST // 2 :]}")


def summary(found: Sequence[Lost], name: str = "captions") -> str:
    """Returns one sentence on many texts, which says how many were cut and which words are unknown most often; "" where
    nothing was lost."""
    cut = sum(1 for lost in found if lost.cut)
    counts: dict[str, int] = {}
    for lost in found:
        for word in lost.unknown:
            counts[word] = counts.get(word, 0) + 1
    parts = [f"{cut} of {len(found)} {name} are cut"] if cut else []
    if counts:
        often = sorted(counts, key=lambda word: (-counts[word], word))
        more = f" and {len(often) - 5} more" if len(often) > 5 else ""
        parts.append(f"{len(often)} words are not in the vocabulary: {', '.join(map(repr, often[:5]))}{more}")
    return f"{'; '.join(parts)}." if parts else ""
