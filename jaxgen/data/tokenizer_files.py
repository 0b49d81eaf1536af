"""Reads the files of a CLIP tokenizer in either form: `tokenizer.json`, or `vocab.json` and `merges.txt`.

Other files beside them say which tokens were added, which are special, and which one pads. They are combined as the
class `CLIPTokenizer` of transformers 5 combines them, so that both forms of one tokenizer give the same ids; the
package `tokenizers` does the work.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Annotated, Any, NotRequired, TypedDict

import msgspec
import tokenizers
from tokenizers import AddedToken, Regex, models, normalizers, pre_tokenizers

from jaxgen.errors import UserError
from jaxgen.files import read_json, read_text, text_lines

START, END = "<|startoftext|>", "<|endoftext|>"
WHOLE, VOCABULARY, MERGES = "tokenizer.json", "vocab.json", "merges.txt"
CONFIG, SPECIAL, ADDED = "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"
FILES = (WHOLE, VOCABULARY, MERGES, SPECIAL, CONFIG, ADDED)
# English contractions, words, single numerals, runs of anything else but spaces
PIECES = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
DEFAULTS = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": END}
NAMED = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")

Id = Annotated[int, msgspec.Meta(ge=0, lt=2**31)]
Text = Annotated[str, msgspec.Meta(min_length=1)]


class Token(TypedDict):
    """Describes an added token in a file."""

    content: Text
    lstrip: NotRequired[bool]
    rstrip: NotRequired[bool]
    normalized: NotRequired[bool]
    single_word: NotRequired[bool]
    special: NotRequired[bool]


class AddedAt(Token):
    """Describes an added token in `tokenizer.json`."""

    id: Id


class Model(TypedDict):
    """Describes the encoding in `tokenizer.json`."""

    vocab: dict[str, Id]
    merges: list[str | list[str]]


class Whole(TypedDict):
    """Describes `tokenizer.json`, of which the vocabulary, the merges and the added tokens are read."""

    model: Model
    added_tokens: NotRequired[list[AddedAt]]


class Config(TypedDict):
    """Describes `tokenizer_config.json`; entries that end with `_token` are read, too."""

    added_tokens_decoder: NotRequired[dict[str, Token]]
    model_max_length: NotRequired[float | None]
    padding_side: NotRequired[str]
    truncation_side: NotRequired[str]
    split_special_tokens: NotRequired[bool]
    additional_special_tokens: NotRequired[list[str | Token] | None]
    extra_special_tokens: NotRequired[list[str | Token] | dict[str, str | Token] | None]


@dataclasses.dataclass(frozen=True)
class Read:
    """Holds a tokenizer that was read.

    Attributes:
      tokenizer: cuts texts into tokens, without start and end.
      start, end, pad, unknown: the special tokens.
    """

    tokenizer: tokenizers.Tokenizer
    start: str
    end: str
    pad: str
    unknown: str


def read_tokenizer_files(folder: pathlib.Path, whole: pathlib.Path | None = None, pad: str = "") -> Read:
    """Reads the tokenizer in a folder.

    Args:
      folder: the folder; its settings count for `whole`, too.
      whole: a `tokenizer.json`, which may have another name; by default that of the folder if there is one.
      pad: the token that pads, in place of what the folder says.

    Raises:
      UserError: a file is missing or damaged, or asks for something that is not done here.
    """
    if whole is None and (folder / WHOLE).is_file():
        whole = folder / WHOLE
    settings = _settings(folder)
    added: dict[int, AddedToken] = {}
    if whole is not None:
        content = read_json(whole, Whole)
        vocabulary, merges = content["model"]["vocab"], [_pair(merge, whole) for merge in content["model"]["merges"]]
    else:
        for file in (VOCABULARY, MERGES):
            if not (folder / file).is_file():
                raise UserError(f"{folder} holds no CLIP tokenizer: neither {WHOLE} nor {file} is there.")
        content, vocabulary = {}, read_json(folder / VOCABULARY, dict[str, Id])
        merges = _merges(folder / MERGES)
    if "added_tokens_decoder" in settings:
        for number, token in settings["added_tokens_decoder"].items():
            if not number.isdecimal():
                raise UserError(f"{folder / CONFIG}: the key {number!r} in added_tokens_decoder is no id; correct it.")
            added[int(number)] = _token(token)
    else:
        special = {text for key in NAMED if (text := _content(settings.get(key)))}
        extra = settings.get("extra_special_tokens") or []
        special |= {text for token in extra if (text := _content(token))} if isinstance(extra, list) else set()
        path = folder / ADDED
        for text, number in (read_json(path, dict[Text, Id]) if path.is_file() else {}).items():
            added[number] = AddedToken(text, normalized=text not in special, special=text in special)
        for entry in content.get("added_tokens", ()):
            added[entry["id"]] = _token(entry)
    if pad and pad not in vocabulary and pad not in {token.content for token in added.values()}:
        raise UserError(f"{folder} has no token {pad!r} to pad with.")
    settings = {**DEFAULTS, **settings, **({"pad_token": pad} if pad else {})}
    named = {key: _content(settings.get(key)) or DEFAULTS.get(key, "") for key in NAMED}
    tokenizer = _build(vocabulary, merges, named["unk_token"], whole or folder / MERGES)
    tokenizer.encode_special_tokens = bool(settings.get("split_special_tokens", False))
    _add(tokenizer, added, settings, whole or folder)
    return Read(tokenizer, named["bos_token"], named["eos_token"], named["pad_token"], named["unk_token"])


def max_length(folder: pathlib.Path) -> float | None:
    """Returns the number of tokens of a text that a folder's settings name, or None."""
    said = _settings(folder).get("model_max_length")
    return said if isinstance(said, int | float) and said > 1 else None


def _settings(folder: pathlib.Path) -> dict[str, Any]:
    """Returns `tokenizer_config.json`, completed by `special_tokens_map.json` where that counts."""
    found: dict[str, Any] = {}
    for file in (CONFIG, SPECIAL):
        path = folder / file
        if not path.is_file() or "added_tokens_decoder" in found:
            continue
        told = read_json(path)
        read_json(path, Config)  # the types
        for key, value in told.items():
            if key.endswith("_token") and not isinstance(value, bool | None):
                _check_token(value, path, key)
        more = "extra_special_tokens"
        if file == CONFIG and not told.get(more) and told.get("additional_special_tokens"):
            told[more] = told.pop("additional_special_tokens")
        if isinstance(told.get(more), list) and isinstance(found.get(more), list):
            told[more] = [*found[more], *told[more]]
        found |= told
    for key in ("padding_side", "truncation_side"):
        if found.get(key, "right") != "right":
            raise UserError(f"{folder / CONFIG}: {key}={found[key]!r} has no equivalent here, only 'right'.")
    return found


def _check_token(value: Any, path: pathlib.Path, key: str) -> None:
    """Raises a UserError for a special token that is neither a text nor an object with a `content`."""
    if _content(value) is None:
        raise UserError(
            f"{path}: {key!r} is {value!r}, where a text or an object with the text 'content' is needed; correct it."
        )


def _content(value: Any) -> str | None:
    value = value.get("content") if isinstance(value, Mapping) else value
    return value if isinstance(value, str) and value else None


def _extra(settings: Mapping[str, Any]) -> list[Any]:
    told = settings.get("extra_special_tokens") or settings.get("additional_special_tokens") or []
    return list(told.values()) if isinstance(told, Mapping) else list(told)


def _token(told: Mapping[str, Any] | str, special: bool | None = None) -> AddedToken:
    if isinstance(told, str):
        return AddedToken(told, special=True)
    flags = {key: bool(told[key]) for key in ("lstrip", "rstrip", "normalized", "single_word") if key in told}
    return AddedToken(told["content"], special=bool(told.get("special", False) or special), **flags)


def _pair(merge: str | list[str], path: pathlib.Path) -> tuple[str, str]:
    parts = merge.split(" ") if isinstance(merge, str) else merge
    if len(parts) != 2:
        raise UserError(f"{path}: the merge {merge!r} does not join two entries of the vocabulary; fetch it again.")
    return parts[0], parts[1]


def _merges(path: pathlib.Path) -> list[tuple[str, str]]:
    lines = [line for line in text_lines(read_text(path)) if line and not line.startswith("#version")]
    return [_pair(line, path) for line in lines]


def _build(
    vocabulary: dict[str, int], merges: list[tuple[str, str]], unknown: str, path: pathlib.Path
) -> tokenizers.Tokenizer:
    for first, second in merges:
        lost = next((part for part in (first, second, first + second) if part not in vocabulary), None)
        if lost is not None:
            raise UserError(
                f"{path}: the merge '{first} {second}' needs {lost!r}, which the vocabulary lacks: they make no "
                "tokenizer together; fetch both again."
            )
    if unknown not in vocabulary:
        letters = pre_tokenizers.ByteLevel.alphabet()
        lost = next((x for letter in letters for x in (letter, f"{letter}</w>") if x not in vocabulary), None)
        if lost is not None:
            raise UserError(
                f"{path}: the vocabulary lacks {lost!r}, and has no token {unknown!r} (unk_token) for what it lacks; "
                "correct one of them."
            )
    encoding = models.BPE(
        vocabulary,
        merges,
        unk_token=unknown if unknown in vocabulary else None,
        end_of_word_suffix="</w>",
        continuing_subword_prefix="",
        fuse_unk=False,
    )
    tokenizer = tokenizers.Tokenizer(encoding)
    spaces = normalizers.Replace(Regex(r"\s+"), " ")
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), spaces, normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), "removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    return tokenizer


def _add(
    tokenizer: tokenizers.Tokenizer, added: Mapping[int, AddedToken], settings: Mapping[str, Any], path: pathlib.Path
) -> None:
    """Adds tokens in the order of their ids, then the special tokens that are not among them.

    Raises:
      UserError: a token would have another id than the file says.
    """
    named = {key: value for key, value in settings.items() if key.endswith("_token") and _content(value)}
    texts = {_content(value) for value in named.values()}
    order = [key for key in NAMED if key in named] + [key for key in named if key not in NAMED]
    tokens = [added[number] for number in sorted(added)]
    known = {token.content for token in tokens}
    for told in [named[key] for key in order] + _extra(settings):
        text = _content(told)
        if text is not None and text not in known:
            known.add(text)
            tokens.append(_token(told, special=text in texts))
    for token in tokens:
        token.special = token.special or token.content in texts
    tokenizer.add_tokens(tokens)
    for number, token in added.items():
        found = tokenizer.token_to_id(token.content)
        if found != number:
            raise UserError(
                f"{path}: the added token {token.content!r} is told to have the id {number}, but after the vocabulary "
                f"its id is {found}; correct the id, or save the tokenizer again."
            )
