"""Finds the trained model that `config.init_from.pretrained` names: a run, or a folder that diffusers wrote.

`jaxgen.runs.setup` makes the method, which is built on the run or takes its networks, noise and tokenizer from the
folder, and `jaxgen.runs.loaded_groups` reads the weights of all groups.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Collection, Mapping
from typing import Any

import flax.linen as nn
from etils import epath
from ml_collections import ConfigDict

from jaxgen.build import build
from jaxgen.config import check, image_shape, section
from jaxgen.data.clip_tokenizer import ClipTokenizer
from jaxgen.errors import UserError
from jaxgen.files import is_remote, user_path
from jaxgen.interop.diffusers_pipeline import Pipeline, is_pipeline, read_pipeline, read_tokenizer
from jaxgen.runs.workdir import stored_config

KEY = "config.init_from.pretrained"
OPTIONS = ("pretrained", "dtype")  # keys of `config.init_from` that are no groups
SAMPLER = {"name": "ddim", "steps": 50, "clip": False, "guidance_scale": 7.5}  # of a folder, where a config has none


def pretrained_run(config: ConfigDict) -> epath.Path | None:
    """Returns the workdir that `config.init_from.pretrained` names; None where it names no run, several, or nothing."""
    source = config.init_from.get("pretrained")
    if not source or not isinstance(source, str):
        return None
    path = user_path(source, KEY, hub=True)
    path = path if is_remote(path) else path.absolute()
    return path if (path / "config.json").exists() and not is_pipeline(path) else None


def pretrained_folder(config: ConfigDict) -> str:
    """Returns the absolute path of the pipeline of diffusers that `config.init_from.pretrained` names.

    What is there is `jaxgen.interop.diffusers_pipeline.read_pipeline`'s to say.
    """
    return os.fspath(user_path(config.init_from.pretrained, KEY, hub=True).absolute())


def pretrained_config(config: ConfigDict) -> ConfigDict | None:
    """Returns the config of the trained model that a method is built on, with this config's sampler and guidance.

    It is the stored config of a run, or that of `latent_diffusion` on a folder of diffusers; None where
    `config.init_from.pretrained` names neither.

    Raises:
      UserError: the run's config is damaged, names code of another package, or is of images of another shape or of
        another number of classes.
    """
    run = pretrained_run(config)
    if run is not None:
        stored = _of_run(config, run)
    elif config.init_from.get("pretrained") and is_pipeline(pretrained_folder(config)):
        stored = ConfigDict(config.to_dict(), type_safe=False)
        stored.method, stored.sampler = section(name="latent_diffusion"), section(**SAMPLER)
    else:
        return None
    for name in ("sampler", "guidance"):
        if len(config[name]):
            stored[name] = config[name]
    return stored


def _of_run(config: ConfigDict, run: epath.Path) -> ConfigDict:
    stored = stored_config(run)
    if stored is None:
        raise UserError(f"{KEY}={run} has no config.json; name the workdir of a run.")
    check(stored)
    if image_shape(stored) != image_shape(config):
        (height, width, channels), ours = image_shape(stored), image_shape(config)
        raise UserError(
            f"{KEY}={run} was trained on images of {height}x{width}x{channels}, and this config has "
            f"{ours[0]}x{ours[1]}x{ours[2]}: set config.data.resolution and config.data.channels to the run's."
        )
    if stored.data.num_classes != config.data.num_classes:
        raise UserError(
            f"{KEY}={run} was trained with config.data.num_classes={stored.data.num_classes}, and this config has "
            f"{config.data.num_classes}: set config.data.num_classes to the run's."
        )
    return stored


def folder_fields(config: ConfigDict, fields: Collection[str]) -> dict[str, Any]:
    """Returns what the folder of diffusers that `config.init_from.pretrained` names gives to the config's method.

    A section of the method without a name, such as `network={"dtype": "bfloat16"}`, changes the folder's network.

    Args:
      fields: the names of the method's fields.

    Raises:
      UserError: the folder cannot be used, or the method is none of text and latents.
    """
    run, name = pretrained_run(config), config.method.name
    if not {"autoencoder", "text", "spacing"} <= set(fields):
        raise UserError(
            f"{KEY} is for the method stable_diffusion, not for {name!r}: a folder of diffusers is for "
            "stable_diffusion and latent_diffusion, and a run for methods that are built on one, such as tuned."
        )
    if run is not None:
        raise UserError(
            f"{KEY}={run} is a run, and {name!r} needs a folder that diffusers wrote; name the run for each group, as "
            f"in config.init_from.denoiser={run}."
        )
    if not config.init_from.pretrained:
        raise UserError(f"{KEY} is empty; name the folder of a pipeline that diffusers wrote.")
    folder = pretrained_folder(config)
    pipeline = read_pipeline(folder)
    if "latent_size" in fields:  # stable_diffusion, which samples only, at the folder's size
        return pipeline.method_fields()
    _check_images(config, folder, pipeline)
    found = pipeline.training_fields(read_tokenizer(folder))
    _check_words(folder, pipeline)
    return found | {
        key: _changed(found[key], changes, f"config.method.{key}")
        for key, changes in config.method.items()
        if isinstance(changes, Mapping | ConfigDict) and "name" not in changes and isinstance(found.get(key), nn.Module)
    }


def _changed(network: nn.Module, changes: Mapping[str, Any], path: str) -> nn.Module:
    """Returns a network with some of its fields changed, which are checked as those of any section."""
    fields = [f.name for f in dataclasses.fields(network) if f.name not in ("name", "parent")]
    kind = type(network)
    told = {field: getattr(network, field) for field in fields} | dict(changes.items())
    return build({"name": f"{kind.__module__}:{kind.__name__}", **told}, "network", path)


def _check_images(config: ConfigDict, folder: str, pipeline: Pipeline) -> None:
    """Raises a UserError unless the network can draw images of the data's size."""
    height, width, channels = image_shape(config)
    needed = pipeline.autoencoder.factor * 2 ** (len(pipeline.unet.channel_multipliers) - 1)
    if channels != pipeline.autoencoder.out_channels:
        raise UserError(
            f"{KEY}={folder} draws images of {pipeline.autoencoder.out_channels} channels, and config.data.channels is "
            f"{channels}."
        )
    if height % needed or width % needed:
        raise UserError(
            f"config.data.resolution is {height}x{width}; for the networks in {folder} both are multiples of {needed}, "
            f"and {pipeline.latent_size[0] * pipeline.autoencoder.factor} is the usual one."
        )


def _check_words(folder: str, pipeline: Pipeline) -> None:
    known = read_tokenizer(folder).vocabulary
    if known > pipeline.text.vocabulary:
        raise UserError(
            f"the tokenizer in {folder} has {known} ids, but the text_encoder knows {pipeline.text.vocabulary}: they "
            "do not belong together."
        )


def folder_of(config: ConfigDict, above: tuple[epath.Path, ...] = ()) -> str | None:
    """Returns the folder of diffusers that a config's model goes back to, directly or by the runs that it is built on.

    None where there is none. `above` are runs that were passed already: one that is built on itself goes back to none.
    A chain goes back to the folder of its first stage that has one.
    """
    named = config.init_from.get("pretrained")
    if named and not isinstance(named, str):
        stages = (stored_config(user_path(text, KEY, hub=True), config.method.get("trust", ())) for text in named)
        return next(filter(None, (folder_of(stage, above) for stage in stages if stage is not None)), None)
    run = pretrained_run(config)
    if run is not None:
        stored = stored_config(run) if run not in above else None
        return folder_of(stored, (*above, run)) if stored is not None else None
    return pretrained_folder(config) if config.init_from.get("pretrained") else None


def folder_tokenizer(config: ConfigDict) -> ClipTokenizer | None:
    """Returns the tokenizer of the folder of diffusers that a config's model goes back to; None where there is none.

    Raises:
      UserError: the folder cannot be read.
    """
    folder = folder_of(config)
    return None if folder is None else read_tokenizer(folder, read_pipeline(folder).length)
