"""Turns the sentences of zero-shot classes into tokens, and checks that a CLIP's text tower ends texts as they do."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from jaxgen.build import build
from jaxgen.data.lost_text import shown
from jaxgen.data.sources import tokenizer_of
from jaxgen.data.subwords.base import SubwordTokenizer
from jaxgen.data.word_tokenizer import END, PAD, WordTokenizer
from jaxgen.errors import UserError
from jaxgen.methods.base import Method
from jaxgen.methods.contrastive.clip import CLIP
from jaxgen.methods.contrastive.prompts import Prompts, tokens_of
from jaxgen.runs.tuning.words import Tokenizer, base_tokenizer

KEY = "config.method.zero_shot"


def with_prompts(config: ConfigDict, method: Mapping[str, Any], fields: set[str]) -> dict[str, Any]:
    """Returns the section of a method whose `zero_shot` has the tokens of its sentences, where it has sentences.

    Args:
      method: the section.
      fields: the names of the fields of the method's class.

    Raises:
      UserError: there is no tokenizer, or it does not keep a sentence whole.
    """
    sections = method.get("zero_shot")
    if "zero_shot" not in fields or not isinstance(sections, Mapping | ConfigDict) or not len(sections):
        return dict(method)
    tokenizer = _tokenizer(config)
    if tokenizer is None:
        raise UserError(
            f"{KEY} has sentences, and config.data.source={config.data.source!r} has no tokenizer that turns them into "
            "tokens: name data with captions, or leave the prompts out."
        )
    return {**method, "zero_shot": {name: _filled(sections[name], name, tokenizer) for name in sections}}


def check_ends(config: ConfigDict, method: Method) -> None:
    """Checks that a CLIP pools texts where the tokenizer of its data ends them, and pads captions as that does.

    A tower that looks for another id would pool some word of the text, and nothing would fail.

    Raises:
      UserError: the config has other ids.
    """
    if not isinstance(method, CLIP):
        return
    try:
        tokenizer = _tokenizer(config)
    except UserError:  # those who open the data say what is wrong
        return
    if isinstance(tokenizer, WordTokenizer):
        end, pad, last = END, PAD, tokenizer.size - 1
    elif isinstance(tokenizer, SubwordTokenizer):
        end, pad, last = tokenizer.end, tokenizer.pad, tokenizer.vocabulary - 1
    else:
        return
    asked = last if method.text.end is None else method.text.end
    if asked != end:
        raise UserError(
            f"config.method.text.end is {method.text.end}{' (the largest id)' if method.text.end is None else ''}, and "
            f"the tokenizer of the data ends texts with the id {end}: set config.method.text.end={end}."
        )
    if method.gives == "tokens" and method.pad != pad:
        raise UserError(f"config.method.pad is {method.pad}, and the tokenizer of the data pads with {pad}: set it so.")


def _tokenizer(config: ConfigDict) -> Tokenizer | None:
    """Returns the tokenizer of a config's base or data; None where it has none. Raises UserError as these do."""
    tokenizer = base_tokenizer(config)
    if tokenizer is None and config.data.source != "none":
        tokenizer = tokenizer_of(config.data.source, config.data.root or None)
    return tokenizer


def _filled(section: Any, name: str, tokenizer: Tokenizer) -> Any:
    """Returns one entry's section with `tokens`; as it is where it is no section, which the builder then says."""
    if not isinstance(section, Mapping | ConfigDict) or section.get("tokens"):
        return section
    prompts = build({"name": "prompts", **section}, Prompts, f"{KEY}.{name}")
    texts = [text for of_class in prompts.texts() for text in of_class]
    for text, lost in zip(texts, tokenizer.lost(texts), strict=True):
        if lost:
            raise UserError(f"{KEY}.{name}: {lost.told(shown(text))}")
    fields = {f.name: getattr(prompts, f.name) for f in dataclasses.fields(Prompts)}
    return {"name": "prompts", **fields, "tokens": tokens_of(prompts, tokenizer)}
