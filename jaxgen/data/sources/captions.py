"""`captions:<source>` is a source with captions, and their words as numbers, such as `captions:folder:photos`.

Examples gain `tokens` int32 [L] (`jaxgen.data.word_tokenizer`). The vocabulary is a file beside the data,
`<path>.vocabulary.json`, so that it stays the one that a run was trained with; the training captions make it:

    python -m jaxgen.data.sources.captions folder:photos --length=16

and says how many ids there are, for the text encoder's `vocabulary`. Where a folder `<path>.tokenizer` is beside the
data, with the files of a tokenizer of CLIP or T5, that is taken: tokens are then [77] or [128].
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from etils import epath

from jaxgen.data.folders.layout import CHOICES
from jaxgen.data.lost_text import summary
from jaxgen.data.source import Example, Examples, Request, Source, locate
from jaxgen.data.sources.folder import chosen
from jaxgen.data.sources.pairs import HALVES
from jaxgen.data.subwords.base import SubwordTokenizer
from jaxgen.data.subwords.t5_tokenizer import open_tokenizer
from jaxgen.data.word_tokenizer import WordTokenizer
from jaxgen.entry_point import Parser, count, entry_point
from jaxgen.errors import UserError
from jaxgen.files import read_text

KINDS = ("folder", "pairs", "npz")
ENDING = ".vocabulary.json"


class Tokenised(Source):
    """Gives another source's examples with the tokens of their captions, by a tokenizer that is given.

    Attributes:
      tokenizer: turns captions into tokens.

    Raises:
      UserError: for data without captions.
    """

    config_name = ""  # it is made of a source, and no config names it

    def __init__(self, request: Request, inner: Source, tokenizer: WordTokenizer | SubwordTokenizer):
        super().__init__(request)
        self.tokenizer, self._inner = tokenizer, inner
        self.num_classes, self.class_names = inner.num_classes, inner.class_names
        if "caption" not in inner[0]:
            raise UserError(f"The examples of {inner.name!r} have no captions, so {self.name!r} has no tokens.")
        if self._inner.arrays is not None:
            self.arrays = self._with_tokens(self._inner.arrays)
        self.notes = (*self._inner.notes, *_notes(self.tokenizer, _captions_of(self._inner)))

    def __len__(self) -> int:
        return len(self._inner)

    def __getitem__(self, index: int) -> Example:
        example = self._inner[index]
        return {**example, "tokens": self.tokenizer([str(example["caption"])])[0]}

    def take(self, indices: Sequence[int]) -> Examples:
        return super().take(indices) if self.arrays is not None else self._with_tokens(self._inner.take(indices))

    def draw(self, indices: Sequence[int], seeds: Sequence[tuple[int, ...]]) -> Examples:
        fixed = self.arrays is not None
        return self.take(indices) if fixed else self._with_tokens(self._inner.draw(indices, seeds))

    def _with_tokens(self, arrays: Examples) -> Examples:
        return {**arrays, "tokens": self.tokenizer([str(caption) for caption in arrays["caption"]])}


class Captions(Tokenised):
    """Gives another source's examples with the tokens of their captions, by the tokenizer beside the data.

    Raises:
      UserError: for data without captions or without a vocabulary.
    """

    config_name = "captions"
    takes = "<folder:path, pairs:path or npz:path>"
    renames = True  # before the captions become tokens

    def __init__(self, request: Request):
        from jaxgen.data.sources import open_source

        tokenizer = self.tokenizer_of(request.argument, request.root)
        size, channels = request.resolution, request.channels
        options = (request.num_classes, request.root, request.rename)
        inner = open_source(request.argument, request.split, size, channels, *options)
        super().__init__(request, inner, tokenizer)

    @staticmethod
    def tokenizer_of(argument: str, root: str | None = None) -> WordTokenizer | SubwordTokenizer:
        """Returns the tokenizer beside the data: one of CLIP or T5 where its files are, else that of the data's own
        vocabulary.
        """
        path, published = vocabulary_of(argument, root), subwords_of(argument, root)
        if published.is_dir():
            return open_tokenizer(published)
        if not path.exists():
            raise UserError(
                f"'captions:{argument}' has no vocabulary, {str(path)!r}; "
                f"`python -m jaxgen.data.sources.captions {argument}` makes one."
            )
        return WordTokenizer.from_json(read_text(path), str(path))


def _captions_of(source: Source) -> list[str]:
    """Returns all captions of a folder or an archive; no image is decoded for them."""
    if source.arrays is not None:
        return [str(caption) for caption in source.arrays["caption"]]
    return list(getattr(source, "captions", None) or [str(source[i]["caption"]) for i in range(len(source))])


def _notes(tokenizer: WordTokenizer | SubwordTokenizer, captions: list[str]) -> tuple[str, ...]:
    """Returns what is to be told of captions: how many are empty or cut, and which words are unknown."""
    empty = sum(1 for caption in captions if not caption.strip())
    lost = summary(tokenizer.lost(captions)).rstrip(".")
    return tuple(filter(None, (f"{empty:,} of {len(captions):,} captions are empty" if empty else "", lost)))


def vocabulary_of(argument: str, root: str | None = None) -> epath.Path:
    """Returns the place of the vocabulary of a source of `KINDS`. Raises UserError for another source."""
    kind, _, path = argument.partition(":")
    if kind not in KINDS or not path:
        raise UserError(
            f"'captions:{argument}' is unknown: captions are those of folder:<path>, pairs:<path> or npz:<path>."
        )
    place = locate(path, root) if kind == "npz" else chosen(path, root, (*CHOICES, *HALVES))[0]
    return place.parent / f"{place.name}{ENDING}"


def subwords_of(argument: str, root: str | None = None) -> epath.Path:
    """Returns the place of a tokenizer of CLIP or T5 beside the data; see `vocabulary_of`."""
    path = vocabulary_of(argument, root)
    return path.parent / f"{path.name.removesuffix(ENDING)}.tokenizer"


def make_vocabulary(source: Source, argument: str, length: int, least: int = 1) -> WordTokenizer:
    """Writes the words of a source's captions beside the data `argument`; see `WordTokenizer.of`.

    Raises:
      UserError: where the source has no captions.
    """
    if "caption" not in source[0]:
        raise UserError(f"The examples of {source.name!r} have no captions to make a vocabulary from.")
    tokenizer = WordTokenizer.of(_captions_of(source), length, least)
    vocabulary_of(argument).write_text(tokenizer.to_json())
    return tokenizer


@entry_point
def main(arguments: Sequence[str] | None = None) -> None:
    """Writes the vocabulary and prints its path and size."""
    from jaxgen.data.sources import open_source

    parser = Parser(prog="python -m jaxgen.data.sources.captions", description="Makes a vocabulary.")
    parser.add_argument("source", help="folder:<path>, pairs:<path> or npz:<path>")
    parser.add_argument("--length", type=count("length", 2), default=16, help="tokens of a caption, its end among them")
    parser.add_argument("--least", type=count("least"), default=1, help="how often a known word occurs, at least")
    parser.add_argument("--split", default="train")
    parser.add_argument("--caption", help="the entry that is the caption, as config.data.rename.caption says")
    parser.add_argument("--channels", type=int, default=3, help="channels of the images: 1 or 3")
    given = parser.parse_args(arguments)
    rename = {"caption": given.caption} if given.caption else {}
    options: dict[str, Any] = {"resolution": 8, "channels": given.channels, "rename": rename}
    vocabulary_of(given.source)
    source = open_source(given.source, given.split, **options)
    print(source.summary(), file=sys.stderr)
    words = make_vocabulary(source, given.source, given.length, given.least)
    for note in _notes(words, _captions_of(source)):
        print(note, file=sys.stderr)
    print(f"{vocabulary_of(given.source)}: {words.size} ids, {words.length} tokens a caption")


if __name__ == "__main__":
    sys.exit(main())
