"""Reads the files of a T5 tokenizer: `tokenizer.json`, or `spiece.model`, which the package sentencepiece trains.

A `spiece.model` is a message of protocol buffers. `MESSAGES` has those of its fields that are read, with the numbers of
sentencepiece's `sentencepiece_model.proto`.
"""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Mapping
from typing import Annotated, Any, NotRequired, TypedDict

import msgspec
import tokenizers
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError
from tokenizers import AddedToken, Regex, models, normalizers, pre_tokenizers

from jaxgen.data.tokenizer_files import CONFIG, WHOLE, Read
from jaxgen.errors import UserError, first_line
from jaxgen.files import read_json, regular_file

SPIECE = "spiece.model"
PAD, END = "<pad>", "</s>"
SPACE = "▁"  # stands for a space, with which each word begins
SENTINELS = 100  # tokens <extra_id_0>, ..., which T5 has behind its vocabulary

FIELD = descriptor_pb2.FieldDescriptorProto
STRING, BYTES, BOOL, FLOAT, ENUM = (
    FIELD.TYPE_STRING, FIELD.TYPE_BYTES, FIELD.TYPE_BOOL, FIELD.TYPE_FLOAT, FIELD.TYPE_INT32,
)  # fmt: skip
# {message: {field: (number, type or message, default)}}
MESSAGES: dict[str, dict[str, tuple[int, Any, str]]] = {
    "Piece": {"piece": (1, STRING, ""), "score": (2, FLOAT, "0"), "type": (3, ENUM, "1")},
    "Trainer": {"model_type": (3, ENUM, "1"), "suffix": (24, BOOL, "false"), "byte_fallback": (35, BOOL, "false")},
    "Normalizer": {
        "charsmap": (2, BYTES, ""),
        "dummy_prefix": (3, BOOL, "true"),
        "single_spaces": (4, BOOL, "true"),
        "escaped": (5, BOOL, "true"),
    },
    "Model": {"pieces": (1, "Piece", ""), "trainer": (2, "Trainer", ""), "normalizer": (3, "Normalizer", "")},
}
UNIGRAM = 1  # a trainer's model type
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)  # a piece's type


class Model(TypedDict):
    """Describes the encoding in `tokenizer.json`; a BPE has other entries, and is refused by its type."""

    type: NotRequired[str]
    unk_id: NotRequired[Annotated[int, msgspec.Meta(ge=0)] | None]


class Whole(TypedDict):
    """Describes `tokenizer.json`, which the package `tokenizers` reads."""

    model: Model


def is_t5(folder: pathlib.Path) -> bool:
    """Returns whether a folder holds a tokenizer of T5: a `spiece.model`, or a unigram `tokenizer.json`.

    Raises:
      UserError: its `tokenizer.json` is damaged.
    """
    if (folder / WHOLE).is_file():
        return read_json(folder / WHOLE, Whole)["model"].get("type") == "Unigram"
    return (folder / SPIECE).is_file()


def read_t5_files(folder: pathlib.Path) -> Read:
    """Reads the tokenizer in a folder; `tokenizer.json` comes first if both are there.

    Raises:
      UserError: no file is there, or it is damaged or of another tokenizer.
    """
    if (folder / WHOLE).is_file():
        return _read_whole(folder / WHOLE)
    if (folder / SPIECE).is_file():
        return _read_spiece(folder / SPIECE, _sentinels(folder))
    raise UserError(f"{folder} holds no tokenizer of T5: neither {WHOLE} nor {SPIECE} is there.")


def _read_whole(path: pathlib.Path) -> Read:
    told = read_json(path, Whole)["model"]
    if told.get("type") != "Unigram":
        raise UserError(f"{path} is a tokenizer of the kind {told.get('type')!r}, and T5's is a Unigram: name another.")
    try:
        tokenizer = tokenizers.Tokenizer.from_str(path.read_text(encoding="utf-8-sig"))
    except Exception as error:  # the package raises Exception itself
        raise UserError(f"{path} is damaged, or no tokenizer ({first_line(error)}); fetch it again.") from error
    number = told.get("unk_id")
    unknown = tokenizer.id_to_token(number) if number is not None else None
    if unknown is None:
        raise UserError(f"{path} has no token for what it does not know (model.unk_id); save the tokenizer again.")
    return Read(tokenizer, "", END, PAD, unknown)


def _sentinels(folder: pathlib.Path) -> int:
    """Returns how many sentinels stand behind the vocabulary: `extra_ids` of the folder's settings, or T5's number."""
    path = folder / CONFIG
    said = (read_json(path) if path.is_file() else {}).get("extra_ids", SENTINELS)
    if not isinstance(said, int) or isinstance(said, bool) or not 0 <= said <= 10_000:
        raise UserError(f"{path}: 'extra_ids' is {said!r}, where a number of tokens is needed; correct it.")
    return said


def _read_spiece(path: pathlib.Path, sentinels: int) -> Read:
    found = _message()()
    try:
        found.ParseFromString(regular_file(path, "the tokenizer").read_bytes())
    except DecodeError as error:
        raise UserError(f"{path} is damaged, or no model of sentencepiece ({error}); fetch it again.") from error
    pieces = list(found.pieces)
    unknown = [number for number, piece in enumerate(pieces) if piece.type == UNKNOWN]
    if len(unknown) != 1:
        many = f"it has {len(unknown)} unknown pieces, not 1"
        raise UserError(f"{path} is damaged, or no model of sentencepiece: {many}; fetch it again.")
    _check_kind(path, found)
    names = [f"<extra_id_{number}>" for number in reversed(range(sentinels))]
    vocabulary = [(piece.piece, piece.score) for piece in pieces] + [(name, 0.0) for name in names]
    if len({text for text, _ in vocabulary}) < len(vocabulary):
        raise UserError(f"{path} is damaged: it has one piece twice; fetch it again.")
    charsmap = found.normalizer.charsmap
    try:
        encoding = models.Unigram(vocabulary, unknown[0], found.trainer.byte_fallback)
        first = [normalizers.Precompiled(charsmap)] if charsmap else []
    except Exception as error:  # the package raises Exception itself
        raise UserError(f"{path} is damaged ({first_line(error)}); fetch it again.") from error
    tokenizer = tokenizers.Tokenizer(encoding)
    spaces = [normalizers.Replace(Regex("^ +| +$"), ""), normalizers.Replace(Regex(" {2,}"), " ")]
    tokenizer.normalizer = normalizers.Sequence([*first, *spaces])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(SPACE, "always", split=False)
    special = [pieces[unknown[0]].piece, *(piece.piece for piece in pieces if piece.type == CONTROL), *names]
    own = [piece.piece for piece in pieces if piece.type == USER_DEFINED]
    tokenizer.add_special_tokens([AddedToken(text, normalized=False, special=True) for text in special])
    tokenizer.add_tokens([AddedToken(text, normalized=False) for text in own])
    return Read(tokenizer, "", END, PAD, pieces[unknown[0]].piece)


def _check_kind(path: pathlib.Path, found: Any) -> None:
    """Raises a UserError for options of sentencepiece that T5's tokenizer does not have."""
    has: Mapping[str, bool] = {
        "another model_type than unigram": found.trainer.model_type != UNIGRAM,
        "treat_whitespace_as_suffix": found.trainer.suffix,
        "no add_dummy_prefix": not found.normalizer.dummy_prefix,
        "no remove_extra_whitespaces": not found.normalizer.single_spaces,
        "no escape_whitespaces": not found.normalizer.escaped,
        "unused pieces": any(piece.type == UNUSED for piece in found.pieces),
    }
    wrong = [name for name, there in has.items() if there]
    if wrong:
        raise UserError(f"{path} has {wrong[0]}, which T5's tokenizer has not: it is one of another model.")


@functools.cache
def _message() -> Any:
    """Returns the class of a whole model's message."""
    file = descriptor_pb2.FileDescriptorProto(name="spiece.proto", package="spiece", syntax="proto2")
    for name, fields in MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, (number, kind, default) in fields.items():
            inner = isinstance(kind, str)
            made = message.field.add(name=field, number=number, label=FIELD.LABEL_OPTIONAL)
            made.type = FIELD.TYPE_MESSAGE if inner else kind
            if inner:
                made.type_name = f".spiece.{kind}"
                made.label = FIELD.LABEL_REPEATED if field == "pieces" else FIELD.LABEL_OPTIONAL
            elif default:
                made.default_value = default
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("spiece.Model"))
