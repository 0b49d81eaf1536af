"""Puts the arrays of an old run into a run folder of the new checkout."""

from __future__ import annotations

import json
import logging
import pathlib
import shutil
from collections.abc import Mapping
from typing import Any

import numpy as np

from studies.same_bits.renames import new_word

STATE_ITEMS = ("params", "ema", "memory", "opt_state", "counters")  # folders of a checkpoint that hold arrays


def convert(old_run: pathlib.Path, new_run: pathlib.Path, target: pathlib.Path, rewrite: bool = False) -> None:
    """Writes a run folder with the new run's layout and the old run's arrays.

    It is a copy of `new_run`, which the new checkout made with the same config. Folders of arrays whose paths did not
    change are copied from the old run as they are; Orbax reads the others and writes them under the new paths. The
    record's checksums are the old run's under the new paths, so that the new code, which verifies them, finds a wrong
    conversion.

    Args:
      rewrite: whether Orbax also reads and writes the folders that could be copied.

    Raises:
      ValueError: where a new array has no old one.
    """
    shutil.copytree(new_run, target)
    old, new = last_checkpoint(old_run), last_checkpoint(target)
    for other in new.parent.iterdir():
        if other.name.isdigit() and other != new:
            shutil.rmtree(other)
    old_sums, record = read_record(old)["sums"], read_record(new)
    for item in STATE_ITEMS:
        paths = [path for path in record["sums"] if path.startswith(f"{item}/")]
        if (new / item).exists():
            names = {new_word(path, paths): path for path in old_sums if path.startswith(f"{item}/")}
            if set(names) != set(paths):
                raise ValueError(f"{item} of {new_run} and {old_run} differ in {sorted(set(names) ^ set(paths))[:6]}")
            _convert_item(old / item, new / item, names, rewrite)
            record["sums"] |= {path: old_sums[before] for path, before in names.items()}
    (new / "meta" / "metadata").write_text(json.dumps(record))


def _convert_item(old: pathlib.Path, new: pathlib.Path, names: Mapping[str, str], rewrite: bool) -> None:
    """Replaces a folder of arrays; `names` is {new path: old path}, both beginning with the folder's name."""
    if all(path == before for path, before in names.items()) and not rewrite:
        shutil.rmtree(new)
        shutil.copytree(old, new)
        return
    import jax
    import orbax.checkpoint as ocp

    def flat(tree: Any) -> dict[str, Any]:
        leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
        return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}

    arrays = flat({old.name: _read_item(old)})
    layout = {new.name: _read_item(new)}
    paths = list(flat(layout))
    changed = jax.tree.unflatten(jax.tree.structure(layout), [arrays[names[path]] for path in paths])
    shutil.rmtree(new)
    with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as writer:
        writer.save(new.absolute(), args=ocp.args.StandardSave(changed[new.name]))


def _read_item(item: pathlib.Path) -> Any:
    import jax
    import orbax.checkpoint as ocp

    logging.getLogger("absl").setLevel(logging.ERROR)  # Orbax warns of a file that such folders do not have

    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
        tree = reader.metadata(item.absolute()).item_metadata.tree
        as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)
        return reader.restore(item.absolute(), ocp.args.PyTreeRestore(restore_args=as_numpy))


def last_checkpoint(run: pathlib.Path) -> pathlib.Path:
    """Returns the folder of a run's newest checkpoint."""
    steps = [p for p in (run / "checkpoints").iterdir() if p.name.isdigit()]
    return max(steps, key=lambda p: int(p.name))


def read_record(checkpoint: pathlib.Path) -> dict[str, Any]:
    """Returns a checkpoint's record; its entry `sums` has the checksum of each array by path."""
    return json.loads((checkpoint / "meta" / "metadata").read_text())
