"""Makes the method that a config names, and opens the data that it reads."""

from __future__ import annotations

import dataclasses
import json
import logging
import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import jax
from etils import epath
from ml_collections import ConfigDict

from jaxgen.build import build, build_field
from jaxgen.config import SAMPLED, image_shape
from jaxgen.data import Loader, Request, Source, open_source
from jaxgen.data.chosen import Chosen
from jaxgen.data.corruptions import Corruption
from jaxgen.data.sources.captions import Tokenised
from jaxgen.data.wrappers.captioned import Captioned
from jaxgen.data.wrappers.sampled import Sampled
from jaxgen.errors import UserError
from jaxgen.methods.base import Method
from jaxgen.registry import find
from jaxgen.runs.chains.stages import chain_stages, is_chain
from jaxgen.runs.pretrained import KEY, folder_fields, folder_tokenizer, pretrained_config, pretrained_run
from jaxgen.runs.tuning.prompts import check_ends, with_prompts
from jaxgen.runs.tuning.words import NAMED, Tokenizer, base_tokenizer, completed

log = logging.getLogger("jaxgen")


def make_method(config: ConfigDict) -> Method:
    """Returns the config's method, with its sampler and the data's shape filled in.

    Raises:
      UserError: naming a key that is unknown, missing or of a wrong type.
    """
    return _make_method(config, ())


def _make_method(config: ConfigDict, above: tuple[epath.Path, ...]) -> Method:
    """Makes a method; `above` are the runs whose methods are built on it."""
    given: dict[str, Any] = {
        "image_shape": image_shape(config),
        "num_classes": int(config.data.num_classes),
    }
    found = find("method", config.method.name, "config.method.name")
    if not dataclasses.is_dataclass(found):
        raise UserError(f"config.method.name={config.method.name!r}: {found.__name__} must be a frozen dataclass.")
    fields = {f.name for f in dataclasses.fields(found)}
    if "chain" in fields:
        chain = chain_stages(config, make_method, make_corruptions)
        return build(config.method, "method", "config.method", chain=chain)
    if is_chain(config):
        raise UserError(
            f"{KEY} names several runs, which the method cascade samples one behind the other; name one for "
            f"{config.method.name!r}."
        )
    sampler = {key: value for key, value in config.sampler.items() if key != "guidance_scale"}
    guidance = _guidance(config)
    if "trained" in fields:
        return build(completed(config), "method", "config.method", **given, **_trained(config, above, found))
    if "sampler" in fields:
        given |= build_field(found, "sampler", sampler, "config.sampler")
    elif len(config.sampler):
        raise UserError(f"config.sampler is set, but the method {config.method.name!r} takes no sampler; remove it.")
    if "guidance" in fields and guidance:
        given["guidance"] = build(guidance, "guidance", "config.guidance", **given)
    elif guidance:
        raise UserError(f"config.guidance is set, but the method {config.method.name!r} takes none; remove it.")
    if "pretrained" in config.init_from:
        given |= folder_fields(config, fields)
        if "spacing" in config.sampler:
            del given["spacing"]
    method = {k: v for k, v in config.method.items() if not _changes(k, v, given)}
    method = with_prompts(config, method, fields)
    made = _checked(build(method, "method", "config.method", **given))
    check_ends(config, made)
    return made


def _changes(key: str, value: Any, given: Mapping[str, Any]) -> bool:
    """Returns whether a key of the method is a section of changes to what a folder gives, which are made already."""
    return key in given and isinstance(value, Mapping | ConfigDict) and "name" not in value


def _checked(method: Method) -> Method:
    """Returns the method; raises a UserError where a network of it or of its parts lacks what is read of it."""
    parts = {f"config.method.parts.{name}": part for name, part in getattr(method, "parts", {}).items()}
    codec = {"config.method.codec": method.codec} if hasattr(method, "codec") else {}
    for path, owner in {"config.method": method, **codec, **parts}.items():
        for field, names in getattr(owner, "network_needs", {}).items():
            network = getattr(owner, field)
            lacking = [name for name in names if network is not None and not hasattr(network, name)]
            if lacking:
                raise UserError(
                    f"{path}.{field} names the network {type(network).__name__}, which is of another kind than the "
                    f"method needs there: it has no {lacking[0]!r}."
                )
    return method


def _trained(config: ConfigDict, above: tuple[epath.Path, ...], method: type) -> dict[str, Method]:
    """Returns the field `trained`: the method of the run or the folder of diffusers that `config.init_from.pretrained`
    names; nothing where none is named and the class `method` has a default.
    """
    needed = next(f for f in dataclasses.fields(method) if f.name == "trained").default is dataclasses.MISSING
    if not needed and not config.init_from.get("pretrained"):
        return {}
    run = pretrained_run(config)
    if run is not None and run in above:
        raise UserError(f"config.init_from.pretrained={run} is a run that is built on itself; name a trained run.")
    stored = pretrained_config(config)
    if stored is None:
        named = config.init_from.get("pretrained") or "nothing"
        raise UserError(
            f"config.method.name={config.method.name!r} is built on a trained run: set config.init_from.pretrained to "
            f"its workdir, not to {named}; a folder that diffusers wrote is one, too."
        )
    return {"trained": _make_method(stored, above if run is None else (*above, run))}


def _guidance(config: ConfigDict) -> dict[str, Any]:
    """Returns `config.guidance`; `sampler.guidance_scale` is short for classifier-free guidance of that scale."""
    guidance = dict(config.guidance.items())
    if config.sampler.get("guidance_scale") is None or guidance.get("name", "classifier_free") != "classifier_free":
        return guidance
    return {"name": "classifier_free", "scale": config.sampler.guidance_scale, **guidance}


def training_sources(config: ConfigDict, sampled: Mapping[str, Sampled] = MappingProxyType({})) -> dict[str, Source]:
    """Returns the named sources that training draws from; the main one's name is empty.

    Args:
      sampled: the sources of images that the pretrained model draws (`sampled_sources`). Those that are missing here
        give black images.
    """
    data = config.data
    sources = {"": open_split(config, data.split)}
    for name, extra in data.extra.items():
        if extra["source"] == SAMPLED:
            source = sampled.get(name) or _sampled(config, name, None)
            sources[name] = _with_tokens(config, source, needed=True)
        else:
            sources[name] = _open_extra(config, name, extra["split"])
    return sources


def sampled_sources(config: ConfigDict, workdir: epath.PathLike) -> dict[str, Sampled]:
    """Returns the sources of `config.data.extra` whose images the pretrained model draws before the first step.

    Raises:
      UserError: there is no such model, or it draws no texts; or the file of the workdir holds other images.
    """
    extra = config.data.extra
    return {name: _sampled(config, name, epath.Path(workdir)) for name in extra if extra[name]["source"] == SAMPLED}


def _sampled(config: ConfigDict, name: str, workdir: epath.Path | None) -> Sampled:
    extra, key = config.data.extra[name], f"config.data.extra.{name}"
    stored = pretrained_config(config) if base_tokenizer(config) is not None else None
    if stored is None or "tokens" not in make_method(stored).conditions:
        raise UserError(
            f"{key}.source='sampled' asks {KEY} to draw images for texts, and it names no model that does; name one, "
            "or a source of images."
        )
    if any("{}" in sentence for sentence in extra["captions"]):
        raise UserError(
            f"{key}.captions: the pretrained model does not know the word that {{}} stands for; write texts for the "
            "class, such as 'a photo of a dog'."
        )
    height, width, channels = image_shape(config)
    request = Request(SAMPLED, "", "all", (height, width), channels)
    how = {"sampler": config.sampler.to_dict(), "guidance": config.guidance.to_dict(), "seed": config.seed}
    drawn_by = json.dumps({"model": config.init_from.pretrained, **how}, sort_keys=True, default=str)
    path = None if workdir is None else workdir / f"{name}.npz"
    return Sampled(request, extra["captions"], extra["num"], path, drawn_by)


def _open_extra(config: ConfigDict, name: str, split: str) -> Source:
    """Returns a split of a source of `config.data.extra`; a UserError names the keys of that section."""
    try:
        return open_split(config, split, name)
    except UserError as error:
        keys = r"config\.data\.(source|split|channels|rename|options|captions)\b"
        raise UserError(re.sub(keys, rf"config.data.extra.{name}.\1", str(error))) from error


def extra_held_out(config: ConfigDict, name: str) -> Source:
    """Returns the held-out split of a source of `config.data.extra`: its `eval_split`, by default that of the data.

    Raises:
      UserError: the source has no such split.
    """
    extra = config.data.extra[name]
    if extra["source"] == SAMPLED:
        raise UserError(f"config.data.extra.{name} is drawn for training and has no held-out split.")
    split = extra.get("eval_split") or config.data.eval_split
    try:
        return _open_extra(config, name, split)
    except UserError as error:
        raise UserError(f"config.data.extra.{name}.eval_split={split!r}: {error}") from error


def make_corruptions(config: ConfigDict) -> dict[str, Corruption]:
    """Returns `{entry: corruption}`: what a batch gains from its images.

    Raises:
      UserError: naming a key that is unknown, missing or of a wrong type.
    """
    sections = {k: {"name": v} if isinstance(v, str) else v for k, v in config.data.corruptions.items()}
    return {k: build(v, "corruption", f"config.data.corruptions.{k}") for k, v in sections.items()}


def tell_sources(sources: dict[str, Source]) -> None:
    """Logs one line for each source that says what it was understood to hold."""
    for name, source in sources.items():
        log.info("data%s: %s", f" {name}" if name else "", source.summary())


def open_split(config: ConfigDict, split: str, extra: str = "") -> Source:
    """Returns one split of the config's data; captions have the tokens of a pretrained folder where there is one.

    Args:
      extra: a source of `config.data.extra` in place of the config's own; its labels are not used. Of the split that is
        trained on, `config.data.examples` examples are chosen.

    Raises:
      UserError: the source is unknown, or the split is missing, empty or does not fit; the message names the key that
        asks for the split.
    """
    height, width, channels = image_shape(config)
    section = config.data.extra[extra] if extra else config.data
    try:
        opened = open_source(
            section["source"],
            split,
            resolution=(height, width),
            channels=section.get("channels") or channels,
            num_classes=0 if extra else config.data.num_classes,
            root=config.data.root or None,
            rename=dict(section.get("rename", {})),
            options=dict(section.get("options", {})),
        )
    except UserError as error:
        if extra or split == config.data.split or split != config.data.eval_split:
            raise
        raise UserError(f"{error} This is of the split {split!r}, which config.data.eval_split names.") from error
    if not extra and split == config.data.split and config.data.examples:
        opened = Chosen(opened, config.data.examples, config.seed)
    opened = _with_captions(config, opened, section.get("captions", ()))
    return _with_tokens(config, opened, needed=not extra)


def _with_captions(config: ConfigDict, source: Source, sentences: Sequence[str]) -> Source:
    """Returns a source with each of some sentences as captions, where `{}` is the word that a graft teaches.

    Raises:
      UserError: the config's model reads no texts, or teaches no word or several.
    """
    if not sentences:
        return source
    if base_tokenizer(config) is None:
        raise UserError(
            f"config.data.captions is set, but no tokenizer is known for its texts: {KEY} names no model that reads "
            "texts; name one, or write the texts beside the images of captions:folder:<path>."
        )
    if any("{}" in sentence for sentence in sentences):
        words = list(new_words(config))
        if len(words) != 1:
            raise UserError(
                "config.data.captions: {} stands for the word that a graft of token_rows teaches, and this config "
                + (f"teaches {', '.join(words)}; write the one that is meant." if words else "teaches none; write it.")
            )
        sentences = [sentence.replace("{}", words[0]) for sentence in sentences]
    return Captioned(source.request, source, sentences)


def _with_tokens(config: ConfigDict, source: Source, needed: bool) -> Source:
    """Returns a source whose captions are tokens of the model that the config is built on, if that reads texts.

    Raises:
      UserError: the source has no captions where they are needed, or a vocabulary of its own.
    """
    base = base_tokenizer(config) if source.name != "none" else None
    if base is None or not (needed or "caption" in source[0]):
        return source
    words, key = new_words(config), NAMED if config.data.tokenizer else KEY
    if pretrained_run(config) is not None and folder_tokenizer(config) is None:  # its data may give tokens themselves
        same = getattr(source, "tokenizer", None) == base or "caption" not in source[0]
        if not words and (same or "tokens" not in make_method(config).conditions):
            return source
    if source.name.startswith("captions:") and getattr(source, "tokenizer", None) != base:
        raise UserError(
            f"config.data.source={source.name!r} has a vocabulary of its own, and {key} brings the tokenizer of its "
            f"texts: set config.data.source={source.request.argument!r}."
        )
    if "caption" not in source[0]:
        raise UserError(
            f"The examples of {source.name!r} have no captions, and {key} names "
            f"{'a tokenizer for them' if key == NAMED else 'a model that learns from them'}: docs/data.md says how a "
            "folder has captions."
        )
    return Tokenised(source.request, source, base.with_words(words))


def new_words(config: ConfigDict) -> dict[str, tuple[int, ...]]:
    """Returns `{word: its token ids}` of the words that the config's grafts teach."""
    return getattr(make_method(config), "words", {}) if config.method.get("grafts") else {}


def text_tokenizer(config: ConfigDict) -> Tokenizer | None:
    """Returns the tokenizer of the model that a config is built on, with the new words of its grafts; None without one.

    Raises:
      UserError: the tokenizer's files cannot be read.
    """
    base = base_tokenizer(config)
    return None if base is None else base.with_words(new_words(config))


def make_loader(config: ConfigDict, sources: dict[str, Source]) -> Loader:
    return Loader(
        sources,
        config.train.batch_size,
        config.seed,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        workers=config.data.workers,
    )
