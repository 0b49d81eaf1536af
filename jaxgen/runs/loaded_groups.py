"""Loads parameter groups that are not initialised.

`config.init_from.<group>` names another run, or a file, for one group; `config.init_from.pretrained` names a run whose
groups are all loaded, those that it learned and those that it was given, or a folder that diffusers wrote.
"""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import os
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from jax.sharding import Mesh
from ml_collections import ConfigDict

from jaxgen.arrays import Memory, Params, Tree
from jaxgen.errors import UserError, first_line, nearest
from jaxgen.files import user_path
from jaxgen.interop.diffusers_pipeline import FOLDERS, is_pipeline, read_group, weights_digest
from jaxgen.methods.base import learned_groups
from jaxgen.methods.tuned import Tuned
from jaxgen.number_types import number_type
from jaxgen.parallel.mesh import replicated
from jaxgen.parallel.sharding import Layout
from jaxgen.runs.chains.stages import is_chain
from jaxgen.runs.hub.published_run import nested, read_arrays
from jaxgen.runs.integrity import check_files, checkpoint_folders, checksums, read_meta, verify
from jaxgen.runs.pretrained import KEY, OPTIONS, pretrained_folder, pretrained_run
from jaxgen.runs.published import published
from jaxgen.runs.tuning.files import read_parts
from jaxgen.runs.workdir import is_published

log = logging.getLogger("jaxgen")


@dataclasses.dataclass(frozen=True)
class LoadedGroups:
    """Holds what `config.init_from` loads.

    Attributes:
      params: `{group: parameters}`.
      memory: `{group: memory entry}` of the groups that came with one.
      origins: `{group: {"source": ..., "step": ..., "sha256": ...}}`, which checkpoints record.
    """

    params: Params
    memory: Memory
    origins: dict[str, dict[str, Any]]


def load_groups(config: ConfigDict, mesh: Mesh, recorded: Mapping[str, dict[str, Any]]) -> LoadedGroups:
    """Loads every group of `config.init_from`.

    Args:
      recorded: the origins that a checkpoint of this run recorded, empty where there is none yet. The same weights
        are loaded again, even where the other run has been trained further.

    Raises:
      UserError: where a source cannot be read, or its weights are not those that this run began with.
    """
    if is_chain(config):
        raise UserError(f"{KEY} names several runs, which are sampled one behind the other and do not train.")
    params: Params = {}
    memory: Memory = {}
    origins: dict[str, dict[str, Any]] = {}
    layout = Layout.of(config, mesh)
    type_of = group_types(config)
    run = pretrained_run(config)
    weights: Params = {}
    own = {group: origin for group, origin in recorded.items() if not config.init_from.get(group)}
    if run is not None:
        weights, memory, origins = load_run(run, own)
        memory = jax.device_put(memory, replicated(mesh))
    elif config.init_from.get("pretrained"):
        weights, origins = load_folder(pretrained_folder(config), own, type_of)
    for group in list(weights):
        placed = as_type(weights.pop(group), type_of(group))
        params[group] = jax.device_put(placed, layout.params({group: placed})[group])
    for group, source in config.init_from.items():
        if not source or group in OPTIONS:
            continue
        known = recorded.get(group)
        found, carried, origin = load_group(source, group, known["step"] if known else None)
        if known and known["sha256"] != origin["sha256"]:
            raise UserError(
                f"config.init_from.{group}: the weights in {source} are not those that this run began with "
                f"(step {known['step']} there); restore them, or begin again in another workdir."
            )
        if group in origins:
            log.info("config.init_from.%s takes the place of this group of %s", group, config.init_from.pretrained)
        origins[group] = origin
        found = as_type(found, type_of(group))
        params[group] = jax.device_put(found, layout.params({group: found})[group])
        if carried is not None:
            memory[group] = jax.device_put(carried, replicated(mesh))
    for name, part in _graft_files(config, params).items():
        origins[name] = {"source": config.method.grafts[name].file, "step": 0, "sha256": digest(part)}
        began = {name: recorded[name]} if name in recorded else {}
        _check_recorded(f"config.method.grafts.{name}.file={origins[name]['source']!r}", origins, began)
        params[name] = jax.device_put(part, layout.params({name: part})[name])
    return LoadedGroups(params, memory, origins)


def _graft_files(config: ConfigDict, params: Params) -> dict[str, Tree]:
    """Returns the parts of grafts that start from files.

    Raises:
      UserError: a file cannot be read, does not fit, or is named beside another place.
    """
    grafts = config.method.get("grafts") or {}
    named = [name for name, graft in grafts.items() if isinstance(graft, Mapping | ConfigDict) and graft.get("file")]
    for name in named:
        if config.init_from.get(name):
            raise UserError(
                f"config.method.grafts.{name}.file and config.init_from.{name} both say where the graft starts; leave "
                "one of them out."
            )
    if not named:
        return {}
    from jaxgen.runs.setup import make_method

    method = make_method(config)
    return read_parts(method.grafts, method.trained, params) if isinstance(method, Tuned) else {}


def load_group(source: str, group: str, step: int | None = None) -> tuple[Tree, Tree | None, dict[str, Any]]:
    """Returns one group's weights from another run: its EMA where there is one, else its parameters.

    Args:
      source: `<workdir>` or `<workdir>#<group there>`, or what `jaxgen.runs.published` knows.
      group: the group's name, here and, where the source does not name another, there.
      step: the checkpoint to read, if it still exists; otherwise the newest is read.

    Returns:
      The parameters as NumPy arrays; the run's memory entry of that group, or None; and the origin to record, which is
      the workdir, the step and a hash of the arrays.

    Raises:
      UserError: where there is no run, no checkpoint or no such group.
    """
    found = published(source)
    if found is not None:
        return *found, {"source": str(source), "step": 0, "sha256": digest(found[0])}
    folder, _, there = str(source).partition("#")
    there = there or group
    workdir = user_path(folder, f"config.init_from.{group}", hub=True).absolute()
    if is_pipeline(workdir):
        return _of_folder(workdir, there, f"config.init_from.{group}={source!r}")
    if not (workdir / "config.json").exists():
        raise UserError(f"config.init_from.{group}={source!r} is not the workdir of a run (it has no config.json).")
    (learned, averaged, memory), _, step = _read_run(workdir, f"config.init_from.{group}={source!r}", step)
    if there not in learned:
        raise UserError(f"config.init_from.{group}: the run {folder} has no group {there!r}; {nearest(there, learned)}")
    params = averaged.get(there, learned[there])
    origin = {"source": str(source), "step": step, "sha256": digest(params)}
    return params, memory.get(there), origin


def load_run(
    run: epath.Path, recorded: Mapping[str, dict[str, Any]]
) -> tuple[Params, Memory, dict[str, dict[str, Any]]]:
    """Returns every group of a trained run, its memory, and the groups' origins.

    A group that the run learned is its EMA where there is one. A group that it was given is read where it came from, at
    the step that the run recorded.

    Args:
      run: the run's workdir.
      recorded: the origins that a checkpoint of the run that loads recorded; the same weights are then loaded.

    Raises:
      UserError: there is no checkpoint that can be read, or weights are not those that were recorded.
    """
    where = f"config.init_from.pretrained={str(run)!r}"
    own = [origin["step"] for origin in recorded.values() if str(origin["source"]).partition("#")[0] == str(run)]
    (learned, averaged, memory), given, step = _read_run(run, where, own[0] if own else None)
    params: Params = {}
    origins: dict[str, dict[str, Any]] = {}
    for group, fresh in learned.items():
        params[group] = averaged.get(group, fresh)
        origins[group] = {"source": f"{run}#{group}", "step": step, "sha256": digest(params[group])}
    for group, origin in given.items():
        if group in params:  # it was where that group's training began
            continue
        params[group], carried, origins[group] = load_group(origin["source"], group, origin["step"] or None)
        if origins[group]["sha256"] != origin["sha256"]:
            raise UserError(
                f"{where} was given the group {group!r} by {origin['source']}, which has other weights now; restore "
                "them."
            )
        if carried is not None:
            memory.setdefault(group, carried)
    _check_recorded(where, origins, recorded)
    return params, memory, origins


def load_folder(
    folder: str, recorded: Mapping[str, dict[str, Any]], type_of: Callable[[str], str]
) -> tuple[Params, dict[str, dict[str, Any]]]:
    """Returns every group of a folder of diffusers, and the groups' origins.

    Args:
      folder: the folder's absolute path.
      recorded: the origins that a checkpoint of the run that loads recorded.
      type_of: the type of a group's weights; "" for float32.

    Raises:
      UserError: weights cannot be read, or are not those that were recorded.
    """
    where = f"{KEY}={folder!r}"
    origins = {group: _origin(folder, group) for group in FOLDERS}
    _check_recorded(where, origins, recorded)
    return {group: read_group(folder, group, type_of(group) or "float32") for group in FOLDERS}, origins


def _of_folder(folder: epath.Path, group: str, where: str) -> tuple[Tree, None, dict[str, Any]]:
    """Returns one group of a folder of diffusers, as `load_group` does."""
    if group not in FOLDERS:
        raise UserError(f"{where}: a folder of diffusers has no group {group!r}; {nearest(group, FOLDERS)}")
    return read_group(folder, group), None, _origin(os.fspath(folder), group)


def _origin(folder: str, group: str) -> dict[str, Any]:
    return {"source": f"{folder}#{group}", "step": 0, "sha256": weights_digest(folder, group)}


def _check_recorded(where: str, origins: Mapping[str, dict[str, Any]], recorded: Mapping[str, dict[str, Any]]) -> None:
    """Raises a UserError where a group's weights are not those that were recorded."""
    for group, known in recorded.items():
        if group in origins and origins[group]["sha256"] != known["sha256"]:
            raise UserError(
                f"{where}: the weights of {group!r} are not those that this run began with (step {known['step']} "
                "there); restore them, or begin again in another workdir."
            )


def group_types(config: ConfigDict) -> Callable[[str], str]:
    """Returns a function that gives the type of a loaded group's weights, or "" for the type that they are read in.

    `config.init_from.dtype` is the type of groups that do not learn; those that learn are float32.
    """
    if not config.init_from.get("dtype"):
        return lambda group: ""
    from jaxgen.runs.setup import make_method

    kind, method = number_type(config.init_from.dtype, "config.init_from.dtype"), make_method(config)
    learned = learned_groups(method)
    return lambda group: "float32" if group in learned else kind


def as_type(params: Tree, kind: str) -> Tree:
    """Returns parameters whose floating arrays have a type; as they are for ""."""
    if not kind:
        return params
    return jax.tree.map(lambda x: x.astype(jnp.dtype(kind)) if jnp.issubdtype(x.dtype, jnp.floating) else x, params)


def _read_run(
    workdir: epath.Path, where: str, step: int | None
) -> tuple[tuple[Params, Params, Memory], dict[str, dict[str, Any]], int]:
    """Returns a checkpoint's learned groups, their averages and the memory, with the recorded origins and the step.

    The newest checkpoint is read where that of `step` is gone. A published run has one, and all its groups are learned.
    """
    if is_published(workdir):
        record, arrays = read_arrays(workdir)
        tree = nested(arrays)
        return (tree["params"], {}, tree["memory"]), {}, record.step
    found = checkpoint_folders(workdir, where)
    step = step if step in found else max(found)
    at = found[step]
    try:
        check_files(at)
        items = {name: read_item(at / name) for name in ("params", "ema", "memory")}
        meta = read_meta(at)
        verify(checksums(items, meta["sums"]), meta["sums"])
        given = _checked_origins(meta.get("origins", {}))
    except Exception as error:  # Orbax and TensorStore raise many kinds for a damaged file
        raise UserError(
            f"{where}: the checkpoint {at} cannot be read ({first_line(error)}); restore it from a copy, or resume "
            "that run, which puts a damaged checkpoint aside."
        ) from error
    return (items["params"], items["ema"], items["memory"]), given, step


def _checked_origins(found: Any) -> dict[str, dict[str, Any]]:
    """Returns the origins that a checkpoint records; raises a ValueError where one lacks its source, step or hash."""
    kinds = {"source": str, "step": int, "sha256": str}
    for origin in found.values() if isinstance(found, dict) else [found]:
        if not isinstance(origin, dict) or any(type(origin.get(key)) is not kind for key, kind in kinds.items()):
            raise ValueError("its record of where groups came from is damaged")
    return found


def read_item(item: epath.Path) -> dict[str, Any]:
    """Returns a checkpoint item as a dict of NumPy arrays; it may have been written on any devices."""
    if not item.exists():
        return {}
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
        tree = reader.metadata(item).item_metadata.tree
        as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)
        return reader.restore(item, ocp.args.PyTreeRestore(restore_args=as_numpy))


def digest(tree: Tree) -> str:
    """Returns the SHA-256 of a tree's names, types, shapes and values.

    Checkpoints record it: its format differs from that of `jaxgen.metrics.networks.base.digest`, which results record.
    """
    total = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        array = np.ascontiguousarray(leaf)
        total.update(f"{jax.tree_util.keystr(path)}{array.dtype}{array.shape}".encode())
        total.update(array.tobytes())
    return total.hexdigest()
