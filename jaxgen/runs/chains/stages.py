"""Finds the runs of a chain: `config.init_from.pretrained = ("runs/base", "runs/upsampler")`, in the order of sampling.

`jaxgen.methods.cascade` samples them one behind the other.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from etils import epath
from ml_collections import ConfigDict

from jaxgen.config import check, image_shape, section
from jaxgen.data.corruptions import Corruption, shapes_of
from jaxgen.errors import UserError, first_line, nearest
from jaxgen.files import is_remote, user_path
from jaxgen.interop.diffusers_pipeline import is_pipeline
from jaxgen.methods.base import Method
from jaxgen.methods.cascade import ChainStage, Entry
from jaxgen.runs.hub.published_run import read_record
from jaxgen.runs.integrity import checkpoint_folders, read_meta
from jaxgen.runs.pretrained import KEY
from jaxgen.runs.workdir import is_published, stored_config

OVERRIDES = "config.method.overrides"
OF_A_STAGE = ("sampler", "guidance", "parts", "entry")


def is_chain(config: ConfigDict) -> bool:
    """Returns whether a config is one of a chain: of the method cascade, or of several runs."""
    return config.method.name == "cascade" or isinstance(config.init_from.get("pretrained"), tuple | list)


def chain_runs(config: ConfigDict) -> tuple[epath.Path, ...]:
    """Returns the workdirs of a chain's stages.

    Raises:
      UserError: there are fewer than two, or one is no run.
    """
    named = config.init_from.get("pretrained") or ()
    named = (named,) if isinstance(named, str) else tuple(named)
    if len(named) < 2:
        raise UserError(
            f"a cascade samples runs one behind the other, and {KEY} names {len(named)}: name two or more, such as "
            "('runs/base', 'runs/upsampler'), in the order of sampling."
        )
    found = []
    for number, text in enumerate(named):
        path = user_path(text, KEY, hub=True)
        path = path if is_remote(path) else path.absolute()
        if is_pipeline(path):
            raise UserError(f"{KEY}: stage {number}, {text}, is a folder of diffusers; name the workdir of a run.")
        if not (path / "config.json").exists():
            raise UserError(f"{KEY}: stage {number}, {text}, is not the workdir of a run (it has no config.json).")
        found.append(path)
    return tuple(found)


def stage_configs(config: ConfigDict) -> tuple[ConfigDict, ...]:
    """Returns the configs of a chain's stages: those that the runs stored, with the changes that overrides make.

    Raises:
      UserError: a run's config is damaged, or overrides name a stage or a key that does not exist.
    """
    runs, overrides = chain_runs(config), _overrides(config)
    known = [f"stage_{number}" for number in range(len(runs))]
    for name in overrides:
        if name not in known:
            raise UserError(f"{OVERRIDES}.{name} does not exist; {nearest(name, known)}")
    found = []
    for name, run in zip(known, runs, strict=True):
        stored = _stored(run, config.method.get("trust", ()))
        for key, changes in overrides.get(name, {}).items():
            _change(stored, key, changes, f"{OVERRIDES}.{name}.{key}")
        found.append(stored)
    return tuple(found)


def _stored(run: epath.Path, trust: Any) -> ConfigDict:
    if not isinstance(trust, tuple | list) or not all(isinstance(package, str) for package in trust):
        raise UserError(f"config.method.trust is a tuple of packages, such as ('my_package',), not {trust!r}.")
    try:
        stored = stored_config(run, trust)
    except UserError as error:
        said = re.sub(r"add --trust=(\S+)\.$", r"name it in config.method.trust=('\1',).", str(error))
        raise UserError(said) from error
    if stored is None:
        raise UserError(f"{KEY}: {run} has no config.json; name the workdir of a run.")
    if is_chain(stored):
        raise UserError(f"{KEY}: {run} is itself a chain, and a stage is a trained run; name the runs of its stages.")
    check(stored)
    return stored


def _change(stored: ConfigDict, key: str, changes: Any, path: str) -> None:
    """Changes a stage's stored config as an override says."""
    if key not in OF_A_STAGE:
        raise UserError(f"{path} does not exist; {nearest(key, OF_A_STAGE)}")
    if key == "entry":
        return
    if not isinstance(changes, Mapping | ConfigDict):
        raise UserError(f"{path} must be a section with keys, not {changes!r}.")
    if key == "parts":
        known = stored.method.get("parts", {})
        for part, own in changes.items():
            if part not in known or not isinstance(own, Mapping | ConfigDict):
                raise UserError(f"{path}.{part} changes no part of that stage's model; {nearest(part, known)}")
            known[part].update(own)
        return
    if changes.get("name") not in (None, stored[key].get("name")):
        stored[key] = section()  # another class, whose keys are its own
    stored[key].update(changes)


def _overrides(config: ConfigDict) -> Mapping[str, Any]:
    found = config.method.get("overrides", {})
    if not isinstance(found, Mapping | ConfigDict):
        raise UserError(f"{OVERRIDES} must be a section, such as stage_1=section(sampler=section(steps=20)).")
    for name, own in found.items():
        if not isinstance(own, Mapping | ConfigDict):
            raise UserError(f"{OVERRIDES}.{name} must be a section with keys, not {own!r}.")
    return {name: dict(own.items()) for name, own in found.items()}


def chain_stages(
    config: ConfigDict,
    make: Callable[[ConfigDict], Method],
    corruptions_of: Callable[[ConfigDict], Mapping[str, Corruption]],
) -> tuple[ChainStage, ...]:
    """Returns the stages of a chain, without their weights.

    Args:
      make: makes the method of a stage's config.
      corruptions_of: makes its corruptions.

    Raises:
      UserError: a run cannot be used, or does not fit the config of the chain.
    """
    for name in ("sampler", "guidance"):
        if len(config[name]):
            raise UserError(f"config.{name} is of one model: set {OVERRIDES}.stage_<number>.{name} for a stage.")
    found = []
    for number, (run, stage) in enumerate(zip(chain_runs(config), stage_configs(config), strict=True)):
        try:
            method, shape = make(stage), image_shape(stage)
            made = shapes_of(corruptions_of(stage), shape)
        except UserError as error:
            raise UserError(f"stage {number} ({run}): {error}") from error
        if "label" in method.conditions and stage.data.num_classes != config.data.num_classes:
            raise UserError(
                f"stage {number} ({run}) knows {stage.data.num_classes} classes, and config.data.num_classes is "
                f"{config.data.num_classes}: set it to the stage's."
            )
        entry = _overrides(config).get(f"stage_{number}", {}).get("entry", "")
        entries = {**_example(run), **method.entries, **made}
        found.append(ChainStage(method, str(run), shape, entries, tuple(made), entry))
    if found[-1].image_shape != image_shape(config):
        (height, width, channels), ours = found[-1].image_shape, image_shape(config)
        raise UserError(
            f"the last stage ({found[-1].name}) has images of {height}x{width}x{channels}, and this config of "
            f"{'x'.join(map(str, ours))}: set config.data.resolution and config.data.channels to the stage's."
        )
    return tuple(found)


def _example(run: epath.Path) -> dict[str, Entry]:
    """Returns the shapes and types of the entries of the batches that a run learned from.

    Raises:
      UserError: it has no checkpoint that can be read.
    """
    if is_published(run):
        return {name: (shape[1:], np.dtype(kind)) for name, (shape, kind) in read_record(run).example.items()}
    _, at = max(checkpoint_folders(run, f"{KEY}: {run}").items())
    try:
        example = read_meta(at)["example"]
        return {name: (tuple(shape[1:]), np.dtype(dtype)) for name, (shape, dtype) in example.items()}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{KEY}: the checkpoint {at} cannot be read ({first_line(error)}); restore it from a "
            "copy, or resume that run."
        ) from error
