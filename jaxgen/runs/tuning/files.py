"""Reads the files that grafts start from, or apply as they are: low-rank updates, new words, weights, ControlNets."""

from __future__ import annotations

import dataclasses
import pathlib
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxgen.arrays import Params, Tree
from jaxgen.errors import UserError
from jaxgen.interop.adapters.controlnet import check_beside, read_controlnet
from jaxgen.interop.adapters.custom_diffusion import read_custom_diffusion
from jaxgen.interop.adapters.learned_embeds import read_embeds
from jaxgen.interop.adapters.lora import Names, Update, lora_file, names_of, read_lora
from jaxgen.interop.adapters.motion import read_motion
from jaxgen.methods.base import Method
from jaxgen.methods.grafts.base import Graft, network_of
from jaxgen.methods.grafts.control import Control
from jaxgen.methods.grafts.leaves import Leaves
from jaxgen.methods.grafts.low_rank import LowRank, layers
from jaxgen.methods.grafts.motion import Motion
from jaxgen.methods.grafts.token_rows import TokenRows


def layer_names(method: Method, params: Params, linear: bool = True) -> dict[str, Names]:
    """Returns `{group: the names of its layers in files}` of a method's networks.

    Args:
      method: the trained method, without grafts.
      params: its parameters, or their shapes.
      linear: see `jaxgen.interop.adapters.lora.names_of`.
    """
    found = {}
    for group, tree in params.items():
        try:
            network = network_of(method, group)
        except UserError:  # a group without a network of its own
            continue
        kernels = layers(tree)
        names = names_of(group, network, kernels, linear)
        convolutions = frozenset(path for path, kernel in kernels.items() if kernel.ndim == 4)
        found[group] = dataclasses.replace(names, convolutions=convolutions)
    return found


def read_parts(grafts: Mapping[str, Graft], trained: Method, params: Params) -> dict[str, Tree]:
    """Returns `{name: part}` of the grafts that name a file.

    Args:
      grafts: all grafts of a method.
      trained: the trained method, without grafts.
      params: its parameters.

    Raises:
      UserError: a file cannot be read, or holds other groups than its grafts have.
    """
    files: dict[pathlib.Path, dict[str, LowRank]] = defaultdict(dict)
    found: dict[str, Tree] = {}
    for name, graft in grafts.items():
        key = f"config.method.grafts.{name}.file"
        if isinstance(graft, LowRank) and graft.file:
            files[lora_file(graft.file, key)][name] = graft
        elif isinstance(graft, TokenRows) and graft.file:
            found[name] = {"rows": jnp.asarray(read_embeds(graft.file, key)[1])}
        elif isinstance(graft, Leaves) and graft.file:
            found[name] = leaves_part(graft.file, key, layer_names(trained, params), graft.group)
        elif isinstance(graft, Control) and graft.file:
            found[name] = controlnet_part(graft.file, key, trained, graft.group)
        elif isinstance(graft, Motion) and graft.file:
            found[name] = motion_part(graft, key, trained)
    names = layer_names(trained, params) if files else {}
    for file, of in files.items():
        found |= _low_rank(file, of, read_lora(file, names))
    return found


def low_rank_part(updates: Mapping[str, Update], scale: float = 1.0) -> Tree:
    """Returns updates, times a factor, as the part of a low-rank graft."""
    return {
        path.replace("/", "|"): {"a": jnp.asarray(update.a), "b": scale * jnp.asarray(update.b)}
        for path, update in updates.items()
    }


def leaves_part(file: str, named_by: str, names: Mapping[str, Names], group: str = "denoiser") -> Tree:
    """Returns the part of a graft of leaves from a file of diffusers' Custom Diffusion.

    Args:
      file: the file.
      named_by: the flag or the key that names it, for messages.
      names: as `layer_names` gives them.
      group: the group whose parameters it has.

    Raises:
      UserError: the file cannot be read, or belongs to another U-Net.
    """
    if group not in names:
        raise UserError(f"{named_by}={file} is for a U-Net, and this model has no group {group!r}; leave it out.")
    found = read_custom_diffusion(file, names[group], named_by)
    return {path.replace("/", "|"): jnp.asarray(array) for path, array in found.items()}


def controlnet_part(folder: str, named_by: str, method: Method, group: str = "denoiser") -> Tree:
    """Returns the part of a control from a folder of diffusers' `ControlNetModel`.

    Args:
      folder: the folder.
      named_by: the flag or the key that names it, for messages.
      method: the trained method.
      group: the group of the U-Net that it steers.

    Raises:
      UserError: the folder cannot be read, or belongs to another U-Net, or the model has none.
    """
    unet = Control(group=group).unet(method)
    network, params = read_controlnet(folder, named_by)
    check_beside(network, unet, f"{named_by}={folder}")
    return jax.tree.map(jnp.asarray, params)


def motion_part(graft: Motion, named_by: str, method: Method) -> Tree:
    """Returns the part of a motion graft from its folder of diffusers' `MotionAdapter`.

    Args:
      graft: the graft.
      named_by: the key that names the folder, for messages.
      method: the trained method.

    Raises:
      UserError: the folder cannot be read, belongs to another U-Net, or has other options than the graft.
    """
    options, params = read_motion(graft.file, named_by, graft.unet(method))
    for option, value in options._asdict().items():
        if getattr(graft, option) != value:
            raise UserError(
                f"{named_by}={graft.file} has temporal layers of {option}={value}, and the graft has "
                f"{getattr(graft, option)}: set its {option} to {value}."
            )
    return jax.tree.map(jnp.asarray, params)


def _low_rank(file: pathlib.Path, grafts: Mapping[str, LowRank], updates: Mapping[str, Any]) -> dict[str, Tree]:
    wanted = {graft.group for graft in grafts.values()}
    for group in updates:
        if group not in wanted:
            name = next(iter(grafts))
            raise UserError(
                f"{file} also updates the group {group!r}, which no graft with this file has: add one, such as "
                f"config.method.grafts.{name}_{group}=section(name='low_rank', group={group!r}, file=...)."
            )
    for name, graft in grafts.items():
        if graft.group not in updates:
            raise UserError(
                f"config.method.grafts.{name}.group={graft.group!r}: {file} updates {', '.join(sorted(updates))} only; "
                "remove the graft, or name another group."
            )
    return {name: low_rank_part(updates[graft.group]) for name, graft in grafts.items()}
