"""Makes the method that a config names, and opens the data that it reads."""

from __future__ import annotations

import dataclasses
import logging
import os
from typing import Any

import jax
from etils import epath
from ml_collections import ConfigDict

from jaxgen.build import build
from jaxgen.config import image_shape
from jaxgen.data import Loader, Source, open_source
from jaxgen.data.corruptions import Corruption
from jaxgen.errors import UserError
from jaxgen.files import user_path
from jaxgen.interop.diffusers_pipeline import read_pipeline
from jaxgen.methods.base import Method
from jaxgen.registry import find
from jaxgen.runs.pretrained import pretrained_config, pretrained_run

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
    sampler = {key: value for key, value in config.sampler.items() if key != "guidance_scale"}
    guidance = _guidance(config)
    if "trained" in fields:
        return build(config.method, "method", "config.method", **given, trained=_trained(config, above))
    if "sampler" in fields:
        given["sampler"] = build(sampler, "sampler", "config.sampler")
    elif len(config.sampler):
        raise UserError(f"config.sampler is set, but the method {config.method.name!r} takes no sampler; remove it.")
    if "guidance" in fields and guidance:
        given["guidance"] = build(guidance, "guidance", "config.guidance", **given)
    elif guidance:
        raise UserError(f"config.guidance is set, but the method {config.method.name!r} takes none; remove it.")
    if config.init_from.get("pretrained"):
        given |= read_pipeline(pretrained_folder(config)).method_fields()
        if "spacing" in config.sampler:
            del given["spacing"]
    return _checked(build(config.method, "method", "config.method", **given))


def _checked(method: Method) -> Method:
    """Returns the method; raises a UserError where one of its networks lacks what the method reads of it."""
    for field, names in method.network_needs.items():
        network = getattr(method, field)
        lacking = [name for name in names if network is not None and not hasattr(network, name)]
        if lacking:
            raise UserError(
                f"config.method.{field} names the network {type(network).__name__}, which is of another kind than the "
                f"method needs there: it has no {lacking[0]!r}."
            )
    return method


def _trained(config: ConfigDict, above: tuple[epath.Path, ...]) -> Method:
    """Returns the method of the run that `config.init_from.pretrained` names."""
    run = pretrained_run(config)
    if run is None:
        named = config.init_from.get("pretrained") or "nothing"
        raise UserError(
            f"config.method.name={config.method.name!r} is built on a trained run: set config.init_from.pretrained to "
            f"its workdir, not to {named}."
        )
    if run in above:
        raise UserError(f"config.init_from.pretrained={run} is a run that is built on itself; name a trained run.")
    return _make_method(pretrained_config(config, run), (*above, run))


def pretrained_folder(config: ConfigDict) -> str:
    """Returns the path of the pipeline that `config.init_from.pretrained` names."""
    return os.fspath(user_path(config.init_from.pretrained, "config.init_from.pretrained"))


def _guidance(config: ConfigDict) -> dict[str, Any]:
    """Returns `config.guidance`; `sampler.guidance_scale` is short for classifier-free guidance of that scale."""
    guidance = dict(config.guidance.items())
    if config.sampler.get("guidance_scale") is None or guidance.get("name", "classifier_free") != "classifier_free":
        return guidance
    return {"name": "classifier_free", "scale": config.sampler.guidance_scale, **guidance}


def training_sources(config: ConfigDict) -> dict[str, Source]:
    """Returns the named sources that training draws from; the main one's name is empty."""
    data = config.data
    sources = {"": open_split(config, data.split)}
    for name, extra in data.extra.items():
        sources[name] = open_split(config, extra["split"], source=extra["source"])
    return sources


def extra_held_out(config: ConfigDict, name: str) -> Source:
    """Returns the held-out split of a source of `config.data.extra`: its `eval_split`, by default that of the data.

    Raises:
      UserError: the source has no such split.
    """
    extra = config.data.extra[name]
    split = extra.get("eval_split") or config.data.eval_split
    try:
        return open_split(config, split, source=extra["source"])
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


def open_split(config: ConfigDict, split: str, source: str | None = None) -> Source:
    """Returns one split of the config's data.

    Raises:
      UserError: the source is unknown, or the split is missing, empty or does not fit; the message names the key that
        asks for the split.
    """
    height, width, channels = image_shape(config)
    try:
        return open_source(
            source or config.data.source,
            split,
            resolution=(height, width),
            channels=channels,
            num_classes=0 if source else config.data.num_classes,
            root=config.data.root or None,
        )
    except UserError as error:
        if source or split == config.data.split or split != config.data.eval_split:
            raise
        raise UserError(f"config.data.eval_split={split!r}: {error}") from error


def make_loader(config: ConfigDict, sources: dict[str, Source]) -> Loader:
    return Loader(
        sources,
        config.train.batch_size,
        config.seed,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        workers=config.data.workers,
    )
