"""Holds the byte-pair tokenizer of CLIP (Radford et al. 2021), and of Stable Diffusion's text encoders.

Text is brought to Unicode's NFC, lower case and single spaces, cut into words, numerals and punctuation, and each
piece's bytes are joined into entries of a vocabulary; `</w>` marks a piece's end.
"""

from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Sequence

import numpy as np
import tokenizers
from tokenizers import Regex, models, normalizers, pre_tokenizers

from jaxgen.errors import UserError

START, END = "<|startoftext|>", "<|endoftext|>"
WHOLE, VOCABULARY, MERGES = "tokenizer.json", "vocab.json", "merges.txt"
SETTINGS = ("special_tokens_map.json", "tokenizer_config.json")  # the first that names a padding token counts
# English contractions, words, single numerals, runs of anything else but spaces
PIECES = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


class ClipTokenizer:
    """Texts as token ids.

    Attributes:
      vocabulary: how many ids there are. start, end, pad: the special ids.
    """

    def __init__(self, tokenizer: tokenizers.Tokenizer, pad: str = END):
        """Args:
          tokenizer: the byte-pair encoding, without start and end.
          pad: the token that follows the end: CLIP and Stable Diffusion 1 repeat the end token, Stable Diffusion 2
            has "!", whose id is 0. In a text "!" keeps its own meaning, as for OpenCLIP, which those weights were
            trained with; transformers takes it for padding there too.

        Raises:
          UserError: where the vocabulary lacks start, end or pad.
        """
        self._tokenizer = tokenizer
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self.vocabulary = tokenizer.get_vocab_size()
        self.start, self.end, self.pad = (self._id(token) for token in (START, END, pad))

    @classmethod
    def from_folder(cls, folder: str | os.PathLike[str], pad: str = "") -> ClipTokenizer:
        """Returns the tokenizer of a folder with `tokenizer.json`, or with `vocab.json` and `merges.txt`.

        Args:
          pad: as above; by default what the folder's settings say, or the end token.

        Raises:
          UserError: for a file that is missing or damaged.
        """
        folder = pathlib.Path(folder)
        if (folder / WHOLE).is_file():
            return cls(_read(folder / WHOLE), pad or _pad_of(folder))
        for file in (VOCABULARY, MERGES):
            if not (folder / file).is_file():
                raise UserError(f"{folder} holds no CLIP tokenizer: neither {WHOLE} nor {file} is there.")
        return cls(_build(folder / VOCABULARY, folder / MERGES), pad or _pad_of(folder))

    @classmethod
    def from_file(cls, file: str | os.PathLike[str], pad: str = END) -> ClipTokenizer:
        """Returns the tokenizer of a `tokenizer.json` of any name.

        Raises UserError for a file that is missing or damaged.
        """
        return cls(_read(pathlib.Path(file)), pad)

    def tokenize(self, texts: str | Sequence[str], length: int = 77) -> np.ndarray:
        """Returns int32 `[N, length]`: the start token, the text's tokens, the end token, then padding.

        A text that is too long loses its last tokens, but never its end token.

        Raises:
          UserError: for a length below 2, or anything but text.
        """
        texts = [texts] if isinstance(texts, str) else list(texts)
        if length < 2:
            raise UserError(f"a text's length is {length}, but its start and end alone take 2 tokens.")
        for text in texts:
            if not isinstance(text, str):
                raise UserError(f"CLIP's tokenizer reads texts, not {type(text).__name__}.")
        ids = np.full((len(texts), length), self.pad, np.int32)
        for row, found in zip(ids, self._tokenizer.encode_batch(texts, add_special_tokens=False), strict=True):
            kept = [self.start, *found.ids[: length - 2], self.end]
            row[: len(kept)] = kept
        return ids

    def __call__(self, captions: Sequence[str]) -> np.ndarray:
        """Returns int32 `[N, 77]`, as the other tokenizers give their ids."""
        return self.tokenize(captions)

    def _id(self, token: str) -> int:
        found = self._tokenizer.token_to_id(token)
        if found is None:
            raise UserError(f"the vocabulary has no {token!r}, so it is not one of CLIP.")
        return found


def _read(path: pathlib.Path) -> tokenizers.Tokenizer:
    if not path.is_file():
        raise UserError(f"There is no file {path} with a tokenizer.")
    try:
        return tokenizers.Tokenizer.from_file(os.fspath(path))
    except Exception as error:  # the package raises nothing narrower
        raise UserError(f"{path} is damaged, or no tokenizer ({error}); fetch it again.") from error


def _build(vocabulary: pathlib.Path, merges: pathlib.Path) -> tokenizers.Tokenizer:
    try:
        encoding = models.BPE.from_file(
            os.fspath(vocabulary), os.fspath(merges), unk_token=END, end_of_word_suffix="</w>", fuse_unk=False
        )
    except Exception as error:  # the package raises nothing narrower
        raise UserError(f"{vocabulary} and {merges.name} make no tokenizer ({error}); fetch them again.") from error
    tokenizer = tokenizers.Tokenizer(encoding)
    spaces = normalizers.Replace(Regex(r"\s+"), " ")
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), spaces, normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), "removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.add_special_tokens([START, END])
    return tokenizer


def _pad_of(folder: pathlib.Path) -> str:
    """The padding token of a folder, END where it says nothing."""
    for path in (folder / file for file in SETTINGS):
        if not path.is_file():
            continue
        try:
            found = json.loads(path.read_text(encoding="utf-8")).get("pad_token")
        except (ValueError, AttributeError) as error:
            raise UserError(f"{path} holds no settings of a tokenizer ({error}); fetch it again.") from error
        if found:
            return found["content"] if isinstance(found, dict) else found
    return END
