"""Finds the tokenizer of the model that a run is built on, and what its grafts of token rows start from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from etils import epath
from ml_collections import ConfigDict

from jaxgen.data.sources import tokenizer_of
from jaxgen.data.subwords.base import SubwordTokenizer
from jaxgen.data.subwords.t5_tokenizer import open_tokenizer
from jaxgen.data.word_tokenizer import WordTokenizer
from jaxgen.errors import UserError
from jaxgen.files import user_path
from jaxgen.interop.adapters.learned_embeds import read_embeds
from jaxgen.methods.grafts.token_rows import TokenRows
from jaxgen.registry import find
from jaxgen.runs.pretrained import folder_tokenizer, pretrained_run
from jaxgen.runs.workdir import stored_config

Tokenizer = WordTokenizer | SubwordTokenizer
NAMED = "config.data.tokenizer"


def own_tokenizer(config: ConfigDict) -> Tokenizer | None:
    """Returns the tokenizer of a config's own data: that of `config.data.tokenizer`, or the source's; None without one.

    Raises:
      UserError: its files cannot be read.
    """
    if not config.data.tokenizer:
        return tokenizer_of(config.data.source, config.data.root or None)
    return open_tokenizer(user_path(config.data.tokenizer, NAMED, hub=True), config.data.token_length)


def base_tokenizer(config: ConfigDict, above: tuple[epath.Path, ...] = ()) -> Tokenizer | None:
    """Returns the tokenizer of the model that `config.init_from.pretrained` names, or of `config.data.tokenizer`; None
    where there is none.

    It is that of the folder of diffusers that the model goes back to, or of the data that the first run learned from.
    `above` are runs that were passed already.

    Raises:
      UserError: the folder or the vocabulary cannot be read, or both keys name a tokenizer.
    """
    if config.data.tokenizer and not above:
        if isinstance(config.init_from.get("pretrained", ()), str):
            raise UserError(
                f"{NAMED}={config.data.tokenizer!r} and config.init_from.pretrained both bring a tokenizer, and texts "
                "are read with one: leave config.data.tokenizer out."
            )
        return own_tokenizer(config)
    if config.data.token_length and not config.data.tokenizer:
        raise UserError(f"config.data.token_length has no effect without {NAMED}: name a tokenizer, or leave it out.")
    folder = folder_tokenizer(config) if not above else None
    if folder is not None:
        return folder
    run = pretrained_run(config)
    stored = stored_config(run) if run is not None and run not in above else None
    if run is None or stored is None:
        return None
    if pretrained_run(stored) is not None:
        return base_tokenizer(stored, (*above, run))
    return own_tokenizer(stored)


def completed(config: ConfigDict) -> Mapping[str, Any]:
    """Returns `config.method` with what grafts of token rows learn from the tokenizer and from their files.

    Raises:
      UserError: a word is known already, or a word to start from is unknown; or a file cannot be read.
    """
    grafts = config.method.get("grafts")
    if not isinstance(grafts, Mapping | ConfigDict):
        return config.method
    found = dict(grafts.items())
    for name, section in grafts.items():
        key = f"config.method.grafts.{name}"
        if not isinstance(section, Mapping | ConfigDict) or not isinstance(section.get("name"), str):
            continue  # the builder says what is wrong
        if issubclass(find("graft", section["name"], f"{key}.name"), TokenRows):
            found[name] = _rows(config, dict(section.items()), key)
    return {**dict(config.method.items()), "grafts": found}


def _rows(config: ConfigDict, section: dict[str, Any], key: str) -> dict[str, Any]:
    """Returns the section of one graft of token rows with its word, its count and the ids that it starts from."""
    if section.get("file"):
        spelled, vectors = read_embeds(section["file"], f"{key}.file")
        count = section.get("count") or len(vectors)
        if count != len(vectors):
            raise UserError(f"{key}.count={count}, and {section['file']} has {len(vectors)} vectors: leave count out.")
        section = {**section, "count": count, "word": section.get("word") or spelled}
    word, initial = section.get("word"), section.get("initial")
    if not word and not initial:
        return section
    tokenizer = base_tokenizer(config)
    if tokenizer is None:
        raise UserError(
            f"{key} names a word, and the model of config.init_from.pretrained has no tokenizer; name the run or the "
            "folder of a model that draws what texts say."
        )
    try:
        if word:
            tokenizer.with_words({word: (0,)})
        ids = tokenizer.ids(initial) if initial else []
    except UserError as error:
        raise UserError(f"{key}: {error}") from error
    if initial and section.get("initial_ids"):
        raise UserError(f"{key} has both initial and initial_ids; leave one of them out.")
    count = section.get("count") or 1
    if initial and not 0 < len(ids) <= count:
        some = "no token" if not ids else f"{len(ids)} tokens"
        raise UserError(
            f"{key}.initial={initial!r} is {some} of the model's vocabulary, and there are {count} rows (count): give "
            "a word that is one token, or as many rows."
        )
    return {**section, "initial_ids": tuple(ids)} if initial else section
