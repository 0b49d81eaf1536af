"""Makes a config's update and sampler as programs for the devices of a machine, from shapes alone.

No array exists and nothing is computed: the shapes of the state come from the config's networks, those of a batch from
its data section. What `config.init_from` names and is not here has the shapes of the config's own network.
"""

from __future__ import annotations

import dataclasses
import functools
import re
import time
from collections.abc import Sequence

import jax
import numpy as np
from jax.sharding import Mesh
from jax.typing import DTypeLike
from ml_collections import ConfigDict

from jaxgen.arrays import MissingEntry
from jaxgen.config import image_shape
from jaxgen.data.sources import check_source
from jaxgen.data.transforms import prepare
from jaxgen.errors import UserError
from jaxgen.methods.base import Method, Model, Turn
from jaxgen.parallel import sharding
from jaxgen.parallel.mesh import make_mesh, over_data
from jaxgen.parallel.sharding import Layout, bytes_per_device
from jaxgen.planning import flops, hlo, roofline
from jaxgen.runs import state as states
from jaxgen.runs.loaded_groups import LoadedGroups, as_type, group_types, load_group
from jaxgen.runs.pretrained import OPTIONS
from jaxgen.runs.setup import make_corruptions, make_loader, make_method, training_sources
from jaxgen.runs.state_builder import StateBuilder
from jaxgen.sampling.generator import Generator
from jaxgen.train.update import draws, programs, update_of

_FULL = re.compile(r"(?:RESOURCE_EXHAUSTED|[Rr]an out of memory|Exceeded (?:hbm|HBM))")
# what a program would use of what there is, all of it or its temporaries alone
_USED = re.compile(r"Used ([\d.]+)([KMGT]?) of ([\d.]+)([KMGT]?) hbm")
_TEMPORARIES = re.compile(r"temporaries \(([\d.]+)([KMGT]?)\) exceeds available HBM \(([\d.]+)([KMGT]?)\)")

STATE = ("parameters", "optimiser", "EMA", "memory", "frozen")  # parts of what a device holds between two steps

Shapes = dict[str, tuple[tuple[int, ...], DTypeLike]]  # {entry of a batch: (shape, dtype)}


@dataclasses.dataclass(frozen=True)
class Program:
    """Holds one compiled program. Bytes and FLOPs of the compiler are those of one device."""

    name: str  # update, "lazy turn <name>, every <n> steps", or sampler
    images: int  # how many one run consumes or makes, over all devices
    fits: bool  # whether the device's memory suffices
    # Bytes by what they hold; `temporaries` are activations and the like, `total` is compared with the device's
    # `limit`. A value is None where the compiler gave up before it knew it.
    memory: dict[str, float | None]
    work: float  # FLOPs of matrix products and convolutions for one image, counted before compiling
    flops: float | None = None  # of one run, as the compiler counts them; None where it gave up
    traffic: float | None = None  # bytes of memory traffic of one run, or None as well
    # {kind: {"count", "bytes", "moved"}}: how many run, the size of their arrays, what a device sends
    collectives: dict[str, dict[str, float]] = dataclasses.field(default_factory=dict)
    estimate: roofline.Estimate | None = None  # None for a device whose numbers are not known
    seconds: float = 0.0  # how long compiling took

    @property
    def state(self) -> float:
        """Returns the bytes of what does not depend on the batch size."""
        return sum(self.memory.get(part) or 0 for part in STATE)


class Job:
    """Holds a config's programs on the devices of a machine.

    Args:
      shapes: shapes of a batch; by default what the config tells of it.

    Attributes:
      absent: a sentence for each group whose weights are not here.

    Raises:
      UserError: as training would, or the batch leaves TPU chips idle.
    """

    def __init__(self, config: ConfigDict, machine: Sequence[jax.Device], shapes: Shapes | None = None):
        self.config, self.machine = config, machine
        train, sizes = config.train, config.mesh
        micro = train.batch_size // train.accumulate
        self.mesh = make_mesh(sizes.data, micro, sizes.fsdp, sizes.tensor, machine)
        parts = " / config.train.accumulate" if train.accumulate > 1 else ""
        check_complete(machine, self.mesh, f"config.train.batch_size{parts}={micro}")
        self.method = make_method(config)
        shapes = batch_shapes(config, self.method) if shapes is None else shapes
        split = over_data(self.mesh)
        self.example = {k: jax.ShapeDtypeStruct(s, np.dtype(d), sharding=split) for k, (s, d) in shapes.items()}
        loaded, self.absent = loaded_shapes(config, self.method, self.mesh, self.example)
        self.builder = StateBuilder(config, self.method, self.mesh, loaded, self.example)
        self.stage = self.method.stages[-1][1]
        self.state = self.builder.abstract(self.stage)
        self.frozen = self.builder.frozen(self.state)
        self.turns, *lazy = reversed(programs(self.method.turns(self.stage), 0))  # at step 0 all are due
        self.lazy = {f"lazy turn {turn.name}, every {turn.every} steps": turn for (turn,) in reversed(lazy)}
        self._batches = (self.example,) * draws(self.method.turns(self.stage))
        self._traced: dict[str, jax.stages.Traced] = {}

    def parts(self) -> dict[str, int]:
        """Returns the bytes of the state on one device."""
        state = self.state
        rest = (state.memory, state.step, state.images, state.nonfinite_count)
        trees = (state.params, state.opt_state, state.ema, rest, self.frozen)
        return {part: bytes_per_device(tree) for part, tree in zip(STATE, trees, strict=True)}

    def update(self) -> Program:
        """Returns the update: the turns of every step, and what ends a step."""
        parts = {**self.parts(), "batch": bytes_per_device(self._batches)}
        return self._program("update", self.trace_update(), self.images, parts)

    def lazy_turns(self) -> tuple[Program, ...]:
        """Returns the programs of the turns that are not due at every step; they run in front of the update."""
        found = []
        for name, turn in self.lazy.items():
            parts = {**self.parts(), "batch": bytes_per_device(self._batches)}
            images = self.config.train.batch_size * turn.repeats
            found.append(self._program(name, self.trace_lazy(name), images, parts))
        return tuple(found)

    def tightest(self) -> Program:
        """Returns the program of a step that fits worst."""
        return max((self.update(), *self.lazy_turns()), key=lambda p: (not p.fits, p.memory["total"] or 0.0))

    @property
    def images(self) -> int:
        """Returns the number of training images that a step consumes."""
        return self.config.train.batch_size * len(self._batches)

    def trace_update(self) -> jax.stages.Traced:
        """Traces the update, for its shapes.

        Raises:
          MissingEntry: where the method reads a batch entry that is not among the shapes.
        """
        return self._trace("update", self.turns)

    def trace_lazy(self, name: str) -> jax.stages.Traced:
        """Traces one of the lazy turns, by its program's name, for its shapes; it raises what `trace_update` does."""
        return self._trace(name, (self.lazy[name],))

    def _trace(self, name: str, turns: tuple[Turn, ...]) -> jax.stages.Traced:
        if name not in self._traced:
            function = update_of(self.config, self.builder, self.stage, turns, self.state)
            self._traced[name] = function.trace(self.state, self.frozen, self._batches[: draws(turns)])
        return self._traced[name]

    def sampler(self) -> Program:
        """Returns the sampler at `config.evaluate.batch_size`.

        Raises:
          UserError: where only data that are not here show what it is conditional on, or it leaves TPU chips idle.
        """
        key = f"config.evaluate.batch_size={self.generator.batch_size}"
        check_complete(self.machine, self.generator.mesh, key)
        parts = {"parameters": bytes_per_device(self._model.params)}
        return self._program("sampler", self.trace_sampler(), self.generator.batch_size, parts)

    def trace_sampler(self) -> jax.stages.Traced:
        """Traces the sampler for its shapes."""
        return self.generator.trace("sample", self._model)

    @functools.cached_property
    def generator(self) -> Generator:
        """Draws `config.evaluate.batch_size` images at a time on these devices, for conditions of zeros where the
        config tells their shapes."""
        sizes = self.config.mesh
        mesh = make_mesh(0, self.config.evaluate.batch_size, sizes.fsdp, sizes.tensor, self.machine)
        entries = {name: np.zeros((1, *shape), dtype) for name, (shape, dtype) in self.method.entries.items()}
        if self.config.data.corruptions:
            entries["image"] = np.zeros((1, *image_shape(self.config)), np.uint8)
        return Generator(self.method, self.config, mesh=mesh, given=entries)

    @functools.cached_property
    def _model(self) -> Model:
        model = states.model_of(self.state, self.frozen, self.stage)
        return sharding.shapes(model, self.generator.layout.model(model))

    def _program(self, name: str, traced: jax.stages.Traced, images: int, parts: dict[str, int]) -> Program:
        work = flops.count(traced.jaxpr) / images
        limit = roofline.memory_of(self.machine[0], len(self.machine))
        memory: dict[str, float | None] = {**parts}
        start = time.monotonic()
        try:
            compiled = traced.lower().compile()
        except Exception as error:
            if not _FULL.search(str(error)):
                raise
            memory |= refused(str(error), sum(parts.values()), limit)
            return Program(name, images, False, memory, work, seconds=time.monotonic() - start)
        seconds = time.monotonic() - start
        found = compiled.memory_analysis()
        arguments = found.argument_size_in_bytes
        memory |= {
            "padding": max(arguments - sum(parts.values()), 0),
            "temporaries": found.temp_size_in_bytes,
            "results": max(found.output_size_in_bytes - found.alias_size_in_bytes, 0),
            "code": found.generated_code_size_in_bytes,
        }
        total = arguments + sum(memory[k] or 0 for k in ("temporaries", "results", "code"))
        memory |= {"total": total, "limit": limit}
        cost = compiled.cost_analysis() or {}
        text = compiled.as_text()
        trips = flops.longest_scan(traced.jaxpr)  # the compiler counts a loop's body once
        counted = float(cost.get("flops", 0.0)) if trips == 1 else work * images / self.mesh.size
        traffic = float(cost.get("bytes accessed", 0.0)) * hlo.loops_factor(text, trips)
        collectives = hlo.collectives(text, trips)
        known = roofline.chip(self.machine[0])
        estimate = roofline.estimate(counted, traffic, collectives, known) if known else None
        kinds = _by_kind(collectives)
        return Program(name, images, total <= limit, memory, work, counted, traffic, kinds, estimate, seconds)


def check_complete(machine: Sequence[jax.Device], mesh: Mesh, batch: str) -> None:
    """Checks that a batch uses all chips of a TPU.

    Args:
      mesh: what the batch is split over.
      batch: the batch as its key and value, for the message.

    Raises:
      UserError: it leaves some idle.
    """
    if machine[0].platform == "tpu" and mesh.size < len(machine):
        raise UserError(
            f"{batch} fills {mesh.size} of {len(machine)} chips, and a TPU's compiler knows complete slices only; make "
            f"it a multiple of {len(machine) // mesh.shape['tensor']}, or take a smaller --topology."
        )


def job_of(config: ConfigDict, machine: Sequence[jax.Device]) -> Job:
    """Returns a config's programs; the data are opened only where the method reads what its config does not show.

    Raises:
      UserError: as training would.
    """
    try:
        job = Job(config, machine)
        job.trace_update()  # a MissingEntry where the config does not tell an entry that the method reads
        for name in job.lazy:
            job.trace_lazy(name)
    except MissingEntry:
        batch = next(make_loader(config, training_sources(config)))
        job = Job(config, machine, {k: (v.shape, v.dtype) for k, v in batch.items()})
    return job


def batch_shapes(config: ConfigDict, method: Method) -> Shapes:
    """Returns `{entry: (shape, dtype)}` of a batch of every source.

    It has images, labels where there are classes, and what else the method's own networks tell.

    Raises:
      UserError: the config names a source that does not exist; those that do are not opened.
    """
    for source in (config.data.source, *(extra["source"] for extra in config.data.extra.values())):
        check_source(source)
    size = config.train.batch_size
    found: Shapes = {}
    height, width, own = image_shape(config)
    for name in ("", *config.data.extra):
        prefix = f"{name}_" if name else ""
        channels = (config.data.extra[name].get("channels") if name else 0) or own
        found[f"{prefix}image"] = ((size, height, width, channels), np.uint8)
        if config.data.num_classes:
            found[f"{prefix}label"] = ((size,), np.int32)
    return found | {name: ((size, *shape), dtype) for name, (shape, dtype) in method.entries.items()}


def loaded_shapes(
    config: ConfigDict, method: Method, mesh: Mesh, example: dict[str, jax.ShapeDtypeStruct]
) -> tuple[LoadedGroups, list[str]]:
    """Returns what `config.init_from` would load, as shapes, and a sentence for each group whose weights are not here.

    Raises:
      UserError: for weights that are not here, of a group that the method cannot make itself.
    """
    layout, params, memory, absent = Layout.of(config, mesh), {}, {}, []
    key = jax.random.key(0)
    corruptions = make_corruptions(config)
    made, left = jax.eval_shape(
        lambda key, batch: method.untrained(key, prepare(batch, key, corruptions=corruptions)), key, example
    )
    named, type_of = [group for group in config.init_from if group not in OPTIONS], group_types(config)
    for group in dict.fromkeys((*named, *method.required_groups)):
        source = config.init_from.get(group)
        whole = bool(config.init_from.get("pretrained")) and group in made  # its shapes are those of its own networks
        if not source and group not in made:
            continue
        try:
            if not source and not whole:
                raise UserError(f"config.init_from.{group} is empty.")
            weights, carried, _ = load_group(source, group) if source else (made[group], left.get(group), {})
        except UserError as error:
            if group not in made:
                raise
            absent.append(f"{str(error).rstrip('.')}: {group!r} has the shapes of the config's own network.")
            weights, carried = made[group], left.get(group)
        weights = jax.eval_shape(functools.partial(as_type, kind=type_of(group)), weights)
        params[group] = sharding.shapes(weights, layout.params({group: weights})[group])
        if carried is not None:
            memory[group] = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), carried)
    return LoadedGroups(params, memory, {}), absent


def _by_kind(collectives: Sequence[hlo.Collective]) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {}
    for each in collectives:
        entry = found.setdefault(each.kind, {"count": 0, "bytes": 0.0, "moved": 0.0})
        entry["count"] += each.times
        entry["bytes"] += each.times * each.size
        entry["moved"] += each.moved
    return found


def refused(message: str, arguments: float, limit: float) -> dict[str, float | None]:
    """Returns `total`, `limit` and, where it is known, `temporaries`, in bytes, of a program that the compiler refused.

    Args:
      message: the compiler's message.
      arguments: bytes of the program's arguments.
      limit: the limit that is used where the message names none.
    """
    used, temporaries = _USED.search(message), _TEMPORARIES.search(message)
    if used:
        return {"total": _bytes(used[1], used[2]), "limit": _bytes(used[3], used[4])}
    if temporaries:
        held = _bytes(temporaries[1], temporaries[2])
        return {"temporaries": held, "total": arguments + held, "limit": _bytes(temporaries[3], temporaries[4])}
    return {"total": None, "limit": limit}


def _bytes(number: str, unit: str) -> float:
    return float(number) * 1024 ** " KMGT".index(unit or " ")
