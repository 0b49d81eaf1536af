"""Makes the model of a published run, with the same arrays on the same devices as the run's checkpoint gives it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from etils import epath
from jax.sharding import Mesh
from ml_collections import ConfigDict

from jaxgen.errors import UserError
from jaxgen.methods.base import Method, Model
from jaxgen.parallel.mesh import replicated
from jaxgen.parallel.sharding import Layout
from jaxgen.runs import state as states
from jaxgen.runs.hub.published_run import WEIGHTS, PublishedRecord, nested, read_arrays
from jaxgen.runs.loaded_groups import LoadedGroups
from jaxgen.runs.state_builder import StateBuilder


def published_model(
    config: ConfigDict, method: Method, mesh: Mesh, workdir: epath.PathLike
) -> tuple[Model, PublishedRecord]:
    """Reads the model of a published run.

    Args:
      config: the run's config.
      method: the config's method.
      mesh: the devices that the model is placed on.
      workdir: the folder.

    Raises:
      UserError: a file is damaged, or its weights are not those of the config's method.
    """
    record, arrays = read_arrays(workdir)
    if record.stage not in [stage for _, stage in method.stages]:
        raise UserError(f"{workdir} is of stage {record.stage}, which its config does not have; fetch it again.")
    tree, where = nested(arrays), f"{epath.Path(workdir) / WEIGHTS}"
    params = {group: _entry(tree["params"], group, where) for group in record.given}
    memory = {name: _entry(tree["memory"], name, where) for name in record.given_memory}
    placed = jax.device_put(params, Layout.of(config, mesh).params(params))
    loaded = LoadedGroups(placed, jax.device_put(memory, replicated(mesh)), {})
    example = {k: jax.ShapeDtypeStruct(shape, np.dtype(kind)) for k, (shape, kind) in record.example.items()}
    state = StateBuilder(config, method, mesh, loaded, example).abstract(record.stage)
    learned = _filled(state.params, arrays, "params", where)
    frozen = states.frozen_groups(loaded.params, state)
    return Model({**frozen, **learned}, _filled(state.memory, arrays, "memory", where), record.stage), record


def _entry(tree: Mapping[str, Any], name: str, where: str) -> Any:
    if name not in tree:
        raise UserError(f"{where} has no {name!r}; fetch it again.")
    return tree[name]


def _filled(shapes: Any, arrays: Mapping[str, np.ndarray], part: str, where: str) -> Any:
    """Returns a tree of shapes with the arrays of their names, placed as the shapes say."""

    def one(path: jax.tree_util.KeyPath, leaf: jax.ShapeDtypeStruct) -> jax.Array:
        name = f"{part}/{jax.tree_util.keystr(path, simple=True, separator='/')}"
        found = arrays.get(name)
        if found is None or found.shape != leaf.shape or found.dtype != leaf.dtype:
            there = "nothing of that name" if found is None else f"{found.dtype}{list(found.shape)}"
            raise UserError(
                f"{where}: the config needs {name!r} as {leaf.dtype}{list(leaf.shape)}, and there is {there}; fetch "
                "the folder again, with its own config.json."
            )
        return jax.device_put(found, leaf.sharding)

    return jax.tree_util.tree_map_with_path(one, shapes)
