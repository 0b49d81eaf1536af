"""A small tokenizer of T5 that is trained here, and its files as sentencepiece and transformers write them."""

from __future__ import annotations

import functools
import json
import pathlib
import struct

import tokenizers
from tokenizers import models, pre_tokenizers, trainers

TEXTS = (
    "a red circle at the top left",
    "there is a crimson disc in the upper left corner",
    "a star that is blue at the bottom",
    "an orange Heart, in the middle of it all",
)
CONTROL, UNKNOWN, NORMAL = 3, 2, 1
CHARMAP = {"\uff21": "A", "\ufb01": "fi", "\t": " ", "e\u0301": "\u00e9"}  # what a normalisation replaces, as NFKC does


@functools.cache
def pieces() -> tuple[tuple[str, float], ...]:
    """Returns `(piece, score)` of a unigram model that is trained on the texts: pad, end, unknown, then the others."""
    made = tokenizers.Tokenizer(models.Unigram())
    made.pre_tokenizer = pre_tokenizers.Metaspace("▁", "always")
    special = ["<pad>", "</s>", "<unk>"]
    trainer = trainers.UnigramTrainer(vocab_size=60, special_tokens=special, unk_token="<unk>", show_progress=False)
    made.train_from_iterator(TEXTS * 5, trainer)
    return tuple((text, score) for text, score in json.loads(made.to_str())["model"]["vocab"])


def field(number: int, value: bytes | int | float) -> bytes:
    """Returns one field of a message of protocol buffers."""
    if isinstance(value, bytes):
        return varint(number << 3 | 2) + varint(len(value)) + value
    if isinstance(value, float):
        return varint(number << 3 | 5) + struct.pack("<f", value)
    return varint(number << 3) + varint(value)


def varint(value: int) -> bytes:
    found = b""
    while value > 127:
        found, value = found + bytes([value & 127 | 128]), value >> 7
    return found + bytes([value])


def spiece(normalizer: bytes = b"", trainer: bytes = b"", kinds: dict[str, int] | None = None) -> bytes:
    """Returns the bytes of a `spiece.model` of these pieces; fields that the reader does not know are in it, too."""
    kinds = {"<pad>": CONTROL, "</s>": CONTROL, "<unk>": UNKNOWN} | (kinds or {})
    found = b""
    for text, score in pieces():
        found += field(1, field(1, text.encode()) + field(2, float(score)) + field(3, kinds.get(text, NORMAL)))
    found += field(2, field(2, b"m") + field(4, len(pieces())) + field(40, 2) + trainer)
    return found + field(3, field(1, b"nmt_nfkc") + normalizer)


def write_spiece(folder: pathlib.Path, **options: object) -> pathlib.Path:
    """Writes a folder with a `spiece.model`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "spiece.model").write_bytes(spiece(**options))
    return folder


def charsmap(replaced: dict[str, str]) -> bytes:
    """Returns sentencepiece's table of replaced characters: a double array of their bytes, then the texts for them.

    Each node of the tree of bytes has 256 places of its own in the array, of which the first has the node's value.
    """
    texts, values = b"", {}
    for before, after in replaced.items():
        values[before.encode()] = len(texts)
        texts += after.encode() + b"\0"
    nodes = sorted({key[:i] for key in values for i in range(len(key) + 1)})
    base = {node: 256 * (i + 1) for i, node in enumerate(nodes)}
    units = [0] * (256 * (len(nodes) + 1))
    units[0] = base[b""] << 10
    for node in nodes[1:]:
        place = base[node[:-1]] ^ node[-1]
        units[place] = (place ^ base[node]) << 10 | (node in values) << 8 | node[-1]
        if node in values:
            units[base[node]] = values[node] | 1 << 31
    array = struct.pack(f"<{len(units)}I", *units)
    return struct.pack("<I", len(array)) + array + texts
