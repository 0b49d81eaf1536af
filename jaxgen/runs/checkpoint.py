"""Writes checkpoints through Orbax: asynchronously, atomically, and readable on any number of devices.

A checkpoint at `checkpoints/<step>/` holds each part of the state (`params`, `ema`, ...) as an item, so that another
run can read one group without the rest. The item `meta` holds the stage, the seed, the state of the data iterator, the
origin and hash of each frozen group, and a checksum of every array. Frozen groups themselves are not written again.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath
from orbax.checkpoint import checkpoint_managers

from jaxgen.errors import UserError, first_line
from jaxgen.methods.base import State
from jaxgen.parallel.distributed import all_agree, barrier, is_first
from jaxgen.runs.integrity import check_files, checksums, text_checksum, verify

log = logging.getLogger("jaxgen")

_ITEMS = ("params", "ema", "memory", "opt_state", "counters")


@dataclasses.dataclass(frozen=True)
class Meta:
    """Holds what a checkpoint records next to its arrays."""

    step: int  # updates done
    images: int  # training images seen
    stage: int  # the stage whose shapes the arrays have
    seed: int  # of the run
    seconds: float  # of training so far
    data: dict[str, Any]  # the data iterator's state, JSON-able
    example: dict[str, list[Any]]  # {name: [shape, dtype]} of a batch: a model can be restored without its data
    origins: dict[str, dict[str, Any]]  # {group: {"source", "step", "sha256"}} of groups that came from elsewhere
    # {metric: [sum, count]} over the steps since the last line of the log; the next line goes on from them
    pending: dict[str, list[float | None]] = dataclasses.field(default_factory=dict)
    # {path: checksum} of every array and of the rest of this record; `Checkpoints.save` fills it in
    sums: dict[str, int] = dataclasses.field(default_factory=dict)

    def text_sum(self) -> dict[str, int]:
        """Returns the checksum of this record without `sums`."""
        return _text_sum(dataclasses.asdict(self))


def _text_sum(record: dict[str, Any]) -> dict[str, int]:
    return {"meta": text_checksum({**record, "sums": None})}


class Checkpoints:
    """Holds the checkpoints of a workdir.

    Args:
      workdir: the folder of the run.
      keep_last: how many of the newest checkpoints are kept.
      keep_best: how many of the best checkpoints are kept, by `metric`.
      metric: the name of the number that decides which checkpoint is best.
      mode: "min" if a smaller number is better, "max" if a larger one is.
      read_only: whether nothing is created, cleaned up or put aside, since another process may be training there.

    Raises:
      UserError: one of the files that are read at once is a pipe or a device.
    """

    def __init__(
        self,
        workdir: epath.PathLike,
        keep_last: int = 2,
        keep_best: int = 0,
        metric: str = "",
        mode: str = "min",
        read_only: bool = False,
    ):
        self.folder = epath.Path(workdir).absolute() / "checkpoints"  # Orbax takes no other
        try:
            for read_at_once in ("*/*", "*/metrics/*"):
                check_files(self.folder, read_at_once)
        except ValueError as error:
            raise UserError(f"{str(error).rstrip('.')}; remove it, or the checkpoint that it is in.") from error
        policies: list[checkpoint_managers.PreservationPolicy] = [checkpoint_managers.LatestN(keep_last)]
        if keep_best:
            policies.append(
                checkpoint_managers.BestN(
                    get_metric_fn=lambda metrics: metrics[metric],
                    reverse=mode == "min",
                    n=keep_best,
                    keep_checkpoints_without_metrics=False,
                )
            )
        self._metric = metric if keep_best else ""
        self._read_only = read_only
        self._manager = ocp.CheckpointManager(
            self.folder,
            item_names=(*_ITEMS, "meta"),
            options=ocp.CheckpointManagerOptions(
                preservation_policy=checkpoint_managers.AnyPreservationPolicy(policies),
                best_fn=(lambda metrics: metrics[metric]) if self._metric else None,
                best_mode=mode,
                cleanup_tmp_directories=not read_only,
                create=False,  # `save` does, so that a run that is refused leaves nothing
                read_only=read_only,
            ),
        )

    def steps(self) -> list[int]:
        """Returns the steps of the finished checkpoints, in order."""
        return sorted(self._manager.all_steps(read=True))

    def best_step(self) -> int | None:
        """Returns the step of the best finished checkpoint by `metric`; None where no checkpoint has that number."""
        return self._manager.best_step() if self._metric else None

    def origins(self) -> dict[str, dict[str, Any]]:
        """Returns the origins of loaded groups, as the newest checkpoint with a readable record gives them."""
        for step in reversed(self.steps()):
            try:
                return self._meta(step).origins
            except Exception as error:  # `restore` falls back in the same way, and logs it
                log.debug("checkpoint %d: %s", step, first_line(error))
        return {}

    def _meta(self, step: int) -> Meta:
        check_files(self.folder / str(step))
        read = self._manager.restore(step, args=ocp.args.Composite(meta=ocp.args.JsonRestore()))
        meta = Meta(**read["meta"])
        verify(_text_sum(read["meta"]), meta.sums)  # of what was written: an older version has fewer entries
        return meta

    def save(self, state: State, meta: Meta, scores: dict[str, float] | None = None) -> None:
        """Writes a checkpoint in the background; a second call waits for the first."""
        if meta.step in self._manager.all_steps():
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        items = {k: ocp.args.StandardSave(v) for k, v in _items(one_copy(state)).items() if jax.tree.leaves(v)}
        meta = dataclasses.replace(meta, sums=checksums(_items(state)) | meta.text_sum())
        metrics = None
        if self._metric and scores and self._metric in scores:
            metrics = {self._metric: float(scores[self._metric])}
        self._manager.save(
            meta.step,
            args=ocp.args.Composite(meta=ocp.args.JsonSave(dataclasses.asdict(meta)), **items),
            metrics=metrics,
            force=True,
        )

    def restore_step(self, step: int, abstract: Callable[[Meta], State]) -> tuple[State, Meta]:
        """Returns the state and the record of the checkpoint of one step.

        Raises:
          UserError: where there is no such checkpoint, or it cannot be read.
        """
        if step not in self.steps():
            raise UserError(f"{self.folder} has no checkpoint of step {step}; there are {self.steps()}.")
        try:
            return self._restore(step, abstract)
        except UserError:
            raise
        except Exception as error:  # Orbax and TensorStore raise many kinds for a damaged file
            raise UserError(f"The checkpoint {self.folder / str(step)} cannot be read: {first_line(error)}") from error

    def restore(self, abstract: Callable[[Meta], State]) -> tuple[State, Meta] | None:
        """Returns the state and the record of the newest checkpoint that can be read; None if there is no checkpoint.

        A damaged checkpoint is named in the log and moved to `damaged/`, and the one before it is used.

        Args:
          abstract: a function from a checkpoint's record to the state's shapes and shardings.

        Raises:
          UserError: where there are checkpoints and none can be read.
        """
        steps = self.steps()
        damaged: list[tuple[int, Exception]] = []
        for step in reversed(steps):
            try:
                found = self._restore(step, abstract)
            except UserError:
                raise
            except Exception as error:  # Orbax and TensorStore raise many kinds for a damaged file
                if self._read_only and jax.process_count() == 1 and step not in self.steps():
                    log.info("checkpoint %d was removed by a training while it was read; the newest is taken", step)
                    return self.restore(abstract)
                all_agree(False)
                damaged.append((step, error))
                log.warning("checkpoint %d is damaged (%s)", step, first_line(error))
                continue
            if not all_agree(True):
                damaged.append((step, ValueError("another process cannot read it")))
                continue
            for bad, _ in damaged:
                log.warning("falling back from checkpoint %d to %d", bad, step)
                if not self._read_only:
                    self._put_aside(bad)
            return found
        if damaged:
            newest, reason = damaged[0]
            raise UserError(
                f"No checkpoint in {self.folder} can be read; the newest, {newest}, says: {first_line(reason)} "
                "Restore the folder from a copy, or begin again in another workdir."
            )
        return None

    def _restore(self, step: int, abstract: Callable[[Meta], State]) -> tuple[State, Meta]:
        meta = self._meta(step)
        target = _items(abstract(meta))
        items = {k: ocp.args.StandardRestore(v) for k, v in target.items() if jax.tree.leaves(v)}
        more = _recorded_groups(meta) - target["opt_state"].keys()
        if more and "opt_state" in items:
            del items["opt_state"]
        arrays = dict(self._manager.restore(step, args=ocp.args.Composite(**items)))
        if more:
            arrays["opt_state"] = self._part_of_opt_state(step, target["opt_state"], more)
        verify(checksums(arrays, meta.sums), meta.sums)
        parts = {k: arrays.get(k, target[k]) for k in _ITEMS}
        return State(**parts.pop("counters"), **parts), meta

    def _part_of_opt_state(self, step: int, target: dict[str, Any], more: set[str]) -> dict[str, Any]:
        """Returns the optimiser state of a checkpoint of an older version without that of the groups `more`.

        Older versions kept one of groups that no turn trains too; it was never used.
        """
        log.info("the optimiser state of %s is not read: no turn trains it", ", ".join(sorted(more)))
        if not jax.tree.leaves(target):
            return target
        known = ocp.checkpoint_utils.construct_restore_args(target)
        with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
            part = ocp.args.PyTreeRestore(target, restore_args=known, partial_restore=True)
            return reader.restore(self.folder / str(step) / "opt_state", part)

    def _put_aside(self, step: int) -> None:
        if is_first():
            self._move_aside(step)
        barrier(f"checkpoint {step} put aside")
        self._manager.reload()

    def _move_aside(self, step: int) -> None:
        target = self.folder.parent / "damaged"
        target.mkdir(parents=True, exist_ok=True)
        name, number = target / str(step), 1
        while name.exists():
            name, number = target / f"{step}.{number}", number + 1
        (self.folder / str(step)).rename(name)

    def wait(self) -> None:
        """Waits until the last save is on disk, and raises the error of a save that failed."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        self._manager.close()


def _recorded_groups(meta: Meta) -> set[str]:
    """Returns the groups whose optimiser state a checkpoint holds, by its checksums."""
    return {path.split("/")[1] for path in meta.sums if path.startswith("opt_state/")}


def one_copy(state: Any) -> Any:
    """Returns a tree whose arrays are on one device where each device of this process has all of them.

    Orbax would cut such an array into as many parts as there are devices, each part by a program of its own, so that
    hosts share the writing; within one process that only costs time. Nothing is copied.
    """

    def whole(array: jax.Array) -> jax.Array:
        alone = array.is_fully_addressable and array.is_fully_replicated
        return array.addressable_shards[0].data if alone else array

    return jax.tree.map(whole, state)


def _items(state: State) -> dict[str, Any]:
    counters = {"step": state.step, "images": state.images, "nonfinite_count": state.nonfinite_count}
    return {
        "params": state.params,
        "ema": state.ema,
        "memory": state.memory,
        "opt_state": state.opt_state,
        "counters": counters,
    }
