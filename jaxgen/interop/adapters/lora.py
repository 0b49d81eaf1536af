"""Reads and writes low-rank updates (LoRA, Hu et al. 2022) in the files of diffusers, peft and kohya.

A file holds two matrices for each layer W: `<prefix>.<layer>.lora_A.weight` [r, in] and `.lora_B.weight` [out, r], and
W x becomes W x + (alpha / r) B A x. The prefix says which network it is, `unet` or `text_encoder`. Read are also

    <prefix>.<layer>.lora.down.weight, .lora.up.weight      as training scripts of diffusers write them
    base_model.model.<layer>.lora_A.weight                  as peft does, with adapter_config.json beside the file
    lora_unet_<layer with _>.lora_down.weight, .alpha       as kohya's scripts write them; lora_te_ for the text encoder

Alpha is in the file's metadata, in entries `.alpha` or in adapter_config.json. A file that is written here has
alpha = r, in its metadata too, and the factor in B, so that every reader computes the same. Neither torch nor peft is
imported.
"""

from __future__ import annotations

import collections
import dataclasses
import json
import logging
import os
import pathlib
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from jaxgen import files
from jaxgen.errors import UserError, nearest
from jaxgen.files import parse_json, user_path
from jaxgen.files.reading import as_type_of
from jaxgen.interop import clip, diffusers_condition_unet
from jaxgen.interop.diffusers_files import (
    Entry,
    Weights,
    check_floating,
    read_header,
    read_metadata,
    save_weights,
)
from jaxgen.interop.file_types import LoraConfig
from jaxgen.networks.pretrained.clip import TextTower
from jaxgen.networks.unet import UNet

log = logging.getLogger("jaxgen")

FILE, PEFT_FILE, PEFT_CONFIG = "pytorch_lora_weights.safetensors", "adapter_model.safetensors", "adapter_config.json"
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
METADATA = "lora_adapter_metadata"  # the entry of a file's metadata that says alpha
PEFT = "base_model.model."
KOHYA = {"unet": ("lora_unet_",), "text_encoder": ("lora_te_", "lora_te1_")}  # {prefix: prefixes of kohya's names}
# What follows a layer's name in the key of a matrix: A brings x down to r numbers, and B brings them up again.
ROLES = {
    "a": re.compile(r"(\.lora_A(\.\w+)?|\.lora(_linear_layer)?\.down|\.lora_down|_lora\.down)\.weight$"),
    "b": re.compile(r"(\.lora_B(\.\w+)?|\.lora(_linear_layer)?\.up|\.lora_up|_lora\.up)\.weight$"),
    "alpha": re.compile(r"\.alpha$"),
}


@dataclasses.dataclass(frozen=True)
class Update:
    """Holds the update of a linear layer, whose output becomes x W + x a b, or of a convolution.

    Attributes:
      a: float32 `[in, r]`; of a convolution `[size, size, in, r]`.
      b: float32 `[r, out]`, which has the factor alpha / r in it.
    """

    a: np.ndarray
    b: np.ndarray


@dataclasses.dataclass(frozen=True)
class Names:
    """Says how the layers of one network are called in a file.

    Attributes:
      prefix: what stands before each name, such as "unet".
      layers: `{path here: name there}`.
      pointwise: paths of the layers that are convolutions of one pixel there.
      convolutions: paths of the layers that are convolutions here, too.
    """

    prefix: str
    layers: Mapping[str, str]
    pointwise: frozenset[str] = frozenset()
    convolutions: frozenset[str] = frozenset()


def names_of(group: str, network: Any, paths: Iterable[str], linear: bool = True) -> Names:
    """Returns the names of a network's layers: those of diffusers and transformers where they have the network.

    A layer of any other network has its own path, with dots, behind the group's name.

    Args:
      group: the network's parameter group.
      network: the network.
      paths: the paths of its layers.
      linear: whether the projections before and after transformers are linear layers in diffusers' network.
    """
    paths = list(paths)
    if isinstance(network, UNet) and network.context_dim and group == "denoiser":
        layers = list(diffusers_condition_unet.layers(network, linear))
        pointwise = frozenset(ours for ours, _, kind in layers if kind == "pointwise")
        names = {ours: theirs for ours, theirs, _ in layers}
        if set(paths) <= names.keys():  # attention at resolutions, in place of levels, is nothing that diffusers has
            return Names("unet", names, pointwise)
    if isinstance(network, TextTower):
        kernel, weight = "/kernel", ".weight"
        table = [(ours, theirs) for ours, theirs, _ in clip.text_names(network.depth) if ours.endswith(kernel)]
        return Names("text_encoder", {ours.removesuffix(kernel): theirs.removesuffix(weight) for ours, theirs in table})
    return Names(group, {path: path.replace("/", ".") for path in paths})


def lora_file(path: str | os.PathLike[str], named_by: str) -> pathlib.Path:
    """Returns the file that a path means: itself, or the one in a folder that diffusers or peft wrote.

    Raises:
      UserError: there is none, or it is a pickle.
    """
    place = pathlib.Path(user_path(path, named_by))
    if place.is_dir():
        found = [place / name for name in (FILE, PEFT_FILE) if (place / name).is_file()]
        if not found:
            raise UserError(f"{named_by}={place} is a folder without {FILE}; name a file of a low-rank update.")
        return found[0]
    return safe_file(place, named_by)


def usual_file(path: str | os.PathLike[str], name: str, named_by: str) -> pathlib.Path:
    """Returns the safetensors file that a path means: itself, or the one of this name in a folder.

    Raises:
      UserError: there is none, or it is a pickle.
    """
    place = pathlib.Path(user_path(path, named_by))
    return safe_file(place / name if place.is_dir() else place, named_by)


def safe_file(place: pathlib.Path, named_by: str) -> pathlib.Path:
    """Returns the path of a safetensors file. Raises UserError if there is no file, or it is a pickle."""
    if place.suffix in PICKLES:
        raise UserError(
            f"{named_by}={place} is a pickle, which can run any program when it is opened and is not read: save it "
            "again as safetensors."
        )
    if not place.is_file():
        raise UserError(f"{named_by}={place}: there is no such file.")
    return place


def read_lora(file: pathlib.Path, names: Mapping[str, Names]) -> dict[str, dict[str, Update]]:
    """Returns `{group: {path of a layer: its update}}` of a file; a group has only the layers that are updated.

    Args:
      file: a file as `lora_file` returns it.
      names: `{group: names of its layers}` of every group of the model.

    Raises:
      UserError: the file is damaged, is of another kind, or updates a layer that the model does not have.
    """
    weights = Weights(read_header(file), file)
    known, found = _stems(names), collections.defaultdict[str, dict[str, str]](dict)
    for key in weights:
        role, stem = _role(file, key)
        found[stem][role] = key
    configs = _configs(file)
    if not configs and not any("alpha" in keys for keys in found.values()):
        log.info("%s does not say alpha; it is taken for the rank, as diffusers does", file)
    updates: dict[str, dict[str, Update]] = {}
    for stem, keys in sorted(found.items()):
        if stem not in known:
            near = nearest(stem, known)
            raise UserError(
                f"{file} updates the layer {stem!r}, which the model does not have"
                f"{'; ' + near if near.startswith('did') else ': it belongs to another model.'}"
            )
        group, path = known[stem]
        of = names[group]
        config = configs.get(of.prefix, configs.get("", {}))
        convolves = path in of.convolutions
        updates.setdefault(group, {})[path] = _update(file, weights, stem, keys, config, of.layers[path], convolves)
    if not updates:
        raise UserError(f"{file} holds no tensors, so it is no low-rank update.")
    return updates


def write_lora(
    file: pathlib.Path, updates: Mapping[str, Mapping[str, Update]], names: Mapping[str, Names], dtype: str = ""
) -> None:
    """Writes a file that diffusers' `load_lora_weights` and `read_lora` read.

    Args:
      file: the file.
      updates: `{group: {path of a layer: its update}}`.
      names: `{group: names of its layers}`.
      dtype: the type of the tensors; "" for float32.

    Raises:
      UserError: diffusers has no such layer.
    """

    def entries() -> Iterator[Entry]:
        for group, layers in updates.items():
            of = names[group]
            for path, update in layers.items():
                if path not in of.layers:
                    raise UserError(f"diffusers has no layer for {path!r} of the group {group!r}, so it has no file.")
                stem, convolves = f"{of.prefix}.{of.layers[path]}", path in of.convolutions
                tail = (1, 1) if path in of.pointwise or convolves else ()
                yield Entry(
                    f"{stem}.lora_A.weight", update.a, (3, 2, 0, 1) if convolves else (1, 0), () if convolves else tail
                )
                yield Entry(f"{stem}.lora_B.weight", update.b, (1, 0), tail)

    tensors: list[Entry] = list(entries())
    told: dict[str, Any] = {}
    for group, layers in updates.items():
        of = names[group]
        ranks = {of.layers[path]: update.a.shape[-1] for path, update in layers.items()}
        told |= {f"{of.prefix}.{key}": value for key, value in _peft_config(ranks).items()}
    save_weights(file, tensors, dtype, {METADATA: json.dumps(told, sort_keys=True)})


def _peft_config(ranks: Mapping[str, int]) -> dict[str, Any]:
    """Returns the config of peft for a network, from `{name of a layer: its rank}`; alpha is the rank everywhere.

    peft takes a name for the end of a module's path, and the path of transformers' text encoder begins with
    `text_model.` in some versions alone: names are without it.
    """
    bare = {name.removeprefix("text_model."): rank for name, rank in ranks.items()}
    rank = collections.Counter(bare.values()).most_common(1)[0][0]
    others = {name: own for name, own in bare.items() if own != rank}
    return {
        "r": rank,
        "lora_alpha": rank,
        "rank_pattern": others,
        "alpha_pattern": others,
        "target_modules": sorted(bare),
    }


def _stems(names: Mapping[str, Names]) -> dict[str, tuple[str, str]]:
    """Returns `{name of a layer in any kind of file: (group, path here)}`."""
    found: dict[str, tuple[str, str]] = {}
    bare: collections.Counter[str] = collections.Counter()
    for group, of in names.items():
        for path, name in of.layers.items():
            for spelled in {name, name.removeprefix("text_model.")}:
                found[f"{of.prefix}.{spelled}"] = group, path
                for kohya in KOHYA.get(of.prefix, ()):
                    found[kohya + spelled.replace(".", "_")] = group, path
                for alone in (spelled, PEFT + spelled):
                    bare[alone] += 1
                    found.setdefault(alone, (group, path))
    return {stem: place for stem, place in found.items() if bare[stem] <= 1}


def _role(file: pathlib.Path, key: str) -> tuple[str, str]:
    """Returns which of a layer's entries a key is, and the layer's name."""
    for role, pattern in ROLES.items():
        if pattern.search(key):
            stem = pattern.sub("", key).replace(".processor.", ".")  # files written before diffusers 0.22
            return role, f"{stem}.0" if stem.endswith(".to_out") else stem
    raise UserError(
        f"{file} holds {key!r}, which is no part of a low-rank update: DoRA, LoHa, LoKr and biases are not read here."
    )


def _update(
    file: pathlib.Path,
    weights: Weights,
    stem: str,
    keys: Mapping[str, str],
    config: LoraConfig,
    name: str,
    convolves: bool,
) -> Update:
    """Returns the update of one layer, which is called `name` in a network of peft."""
    arrays = {}
    for role in ("a", "b"):
        if role not in keys:
            raise UserError(f"{file}: the layer {stem!r} lacks one of its two matrices; fetch the file again.")
        array = weights[keys[role]]
        check_floating(keys[role], array.dtype, os.fspath(file))
        if convolves and role == "a" and array.ndim == 4:
            arrays[role] = array.astype(np.float32).transpose(2, 3, 1, 0)
            continue
        if array.ndim == 4 and array.shape[2:] == (1, 1):
            array = array[:, :, 0, 0]
        if array.ndim != 2:
            raise UserError(
                f"{file}: {keys[role]!r} has shape {array.shape}, an update of a convolution, and the layer is "
                f"{'one, whose second matrix is of one pixel' if convolves else 'linear'}: it belongs to another model."
            )
        arrays[role] = array.astype(np.float32).T
    a, b = arrays["a"], arrays["b"]
    rank = a.shape[-1]
    if b.shape[0] != rank:
        raise UserError(f"{file}: the matrices of {stem!r} have ranks {rank} and {b.shape[0]}; fetch the file again.")
    if "alpha" in keys:
        alpha = weights[keys["alpha"]]
        if alpha.size != 1:
            raise UserError(f"{file}: {keys['alpha']!r} has shape {alpha.shape}, and alpha is one number.")
        scale = alpha.astype(np.float32).item() / rank
    else:
        scale = _scale(config, name, rank)
    return Update(np.ascontiguousarray(a), np.ascontiguousarray(b * np.float32(scale)))


def _scale(config: LoraConfig, name: str, rank: int) -> float:
    """Returns the factor of a layer's update as peft computes it from its config: alpha / rank."""
    patterns = config.get("alpha_pattern") or {}
    of_layer = (value for end, value in patterns.items() if f".{name}".endswith(f".{end}"))
    alpha = next(of_layer, config.get("lora_alpha") or rank)
    return alpha / (rank**0.5 if config.get("use_rslora") else rank)


def _configs(file: pathlib.Path) -> dict[str, LoraConfig]:
    """Returns `{prefix of a network: what peft's config says}` from the file's metadata, or from the file beside it.

    The prefix of a file of one network is "". It is empty where neither says anything.
    """
    told, where = read_metadata(file).get(METADATA), f"{file}, {METADATA}"
    beside = file.parent / PEFT_CONFIG
    if told is not None:
        found = parse_json(told, where, dict[str, Any])
    elif file.name == PEFT_FILE and beside.is_file():
        found, where = files.read_json(beside, dict[str, Any]), os.fspath(beside)
    else:
        return {}
    configs: dict[str, dict[str, Any]] = {}
    for key, value in found.items():
        prefix, _, entry = key.rpartition(".")
        configs.setdefault(prefix, {})[entry] = value
    return {prefix: _checked(config, where) for prefix, config in configs.items()}


def _checked(config: Mapping[str, Any], where: str) -> LoraConfig:
    found: LoraConfig = as_type_of(config, where, LoraConfig)
    if found.get("use_dora"):
        raise UserError(f"{where}: use_dora is set, and DoRA is not read here, only LoRA.")
    for name in found.get("alpha_pattern") or {}:
        if not re.fullmatch(r"[\w.]+", name):
            raise UserError(f"{where}: alpha_pattern has {name!r}, where the name of a layer is read.")
    return found
