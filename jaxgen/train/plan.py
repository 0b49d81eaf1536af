"""What a run needs of a machine, before there is one: its real update and sampler, compiled ahead of time.

The shapes of the state come from the config, the devices from a topology (`jaxgen.train.topology`); nothing is
computed, no array exists and no data set is opened unless a method wants more than images and labels.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import re
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from jaxgen.build import lookup
from jaxgen.config import image_shape
from jaxgen.errors import UserError
from jaxgen.methods.base import Model
from jaxgen.train import flops, hlo, roofline
from jaxgen.train.checkpoint import load_group
from jaxgen.train.generate import Generator
from jaxgen.train.mesh import make_mesh, over_data
from jaxgen.train.setup import Given, Stages, make_loader, make_method, training_sources
from jaxgen.train.sharding import Layout, bytes_per_device
from jaxgen.train.topology import devices
from jaxgen.train.update import draws, make_update

_FULL = re.compile(r"(?:RESOURCE_EXHAUSTED|[Rr]an out of memory|Exceeded (?:hbm|HBM))")
# what a program would use of what there is, all of it or its temporaries alone
_USED = re.compile(r"Used ([\d.]+)([KMGT]?) of ([\d.]+)([KMGT]?) hbm")
_TEMPORARIES = re.compile(r"temporaries \(([\d.]+)([KMGT]?)\) exceeds available HBM \(([\d.]+)([KMGT]?)\)")


Shapes = dict[str, tuple[tuple[int, ...], Any]]  # {entry of a batch: (shape, dtype)}


@dataclasses.dataclass(frozen=True)
class Program:
    """One compiled program, per device.

    Attributes:
      name: update or sampler. images: that one run takes or gives, over all devices. fits: whether memory suffices.
      memory: bytes by what they hold, `temporaries` being activations and the like; `total`, which the device's
        `limit` stands against. None where the compiler gave up before it knew.
      work: FLOPs of matrix products and convolutions for one image, counted before compiling.
      flops, traffic: that the compiler counts; None where it gave up.
      collectives: `{kind: {"count", "bytes", "moved"}}`: how many run, the size of their arrays, what a device sends.
      estimate: the roofline, None without the chip's numbers. seconds: that compiling took.
    """

    name: str
    images: int
    fits: bool
    memory: dict[str, float | None]
    work: float
    flops: float | None = None
    traffic: float | None = None
    collectives: dict[str, dict[str, float]] = dataclasses.field(default_factory=dict)
    estimate: roofline.Estimate | None = None
    seconds: float = 0.0


@dataclasses.dataclass(frozen=True)
class Mend:
    """A change of the config that was compiled because the config did not fit.

    Attributes:
      overrides: `{key: value}`. fits: whether it does. total: bytes per device, where known.
    """

    overrides: dict[str, Any]
    fits: bool
    total: float | None


@dataclasses.dataclass(frozen=True)
class Plan:
    """Attributes:
    topology, device: the machine's name and its devices' kind. mesh: devices on each axis.
    batch_size, accumulate: of the config. parameters: that learn, in all. state: bytes on one device by part.
    programs: the update and, where the method samples, the sampler. mends: tried where the update does not fit.
    batches: `{batch size: fits}` that a search tried. assumptions: behind the estimates.
    """

    topology: str
    device: str
    mesh: dict[str, int]
    batch_size: int
    accumulate: int
    parameters: int
    state: dict[str, int]
    programs: tuple[Program, ...]
    mends: tuple[Mend, ...] = ()
    batches: dict[int, bool] = dataclasses.field(default_factory=dict)
    assumptions: tuple[str, ...] = ()

    @property
    def fits(self) -> bool:
        """Whether all programs do."""
        return all(program.fits for program in self.programs)

    def to_dict(self) -> dict[str, Any]:
        """What `plan.json` holds."""
        entries = dataclasses.asdict(self)
        for entry, program in zip(entries["programs"], self.programs, strict=True):
            if program.estimate is not None:
                entry["estimate"] |= {name: getattr(program.estimate, name) for name in ("least", "most", "bound")}
        return {**entries, "fits": self.fits}


def plan(config: ConfigDict, topology: str, sampler: bool = True, mend: bool = True) -> Plan:
    """Compiles a checked config's update, and its sampler, for a machine.

    Args:
      sampler: whether that is compiled too.
      mend: whether to look for a change that fits where the update does not.

    Raises:
      UserError: as training would, or where the topology means no machine.
    """
    machine = devices(topology)
    job = _job(config, machine)
    programs, mends = [job.update()], ()
    known = roofline.chip(machine[0])
    sentences = roofline.assumptions(known) if known else _unknown(machine)
    if not programs[0].fits:
        mends = _mends(config, machine, _candidates(config, len(machine)), _Job.update) if mend else ()
    elif sampler and job.method.samples_images:
        try:
            programs.append(job.sampler())
        except UserError as error:  # conditions that only the data can show, and those are not here
            sentences = [*sentences, f"The sampler was not planned: {error}"]
        if mend and not programs[-1].fits:
            mends = _mends(config, machine, _smaller(config), _Job.sampler)
    return Plan(
        topology=topology,
        device=str(machine[0].device_kind),
        mesh=dict(job.mesh.shape),
        batch_size=config.train.batch_size,
        accumulate=config.train.accumulate,
        parameters=sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(job.state.params)),
        state=job.parts(),
        programs=tuple(programs),
        mends=mends,
        assumptions=tuple(sentences),
    )


def find_batch(config: ConfigDict, topology: str, most: int = 2**20) -> tuple[int, dict[int, bool]]:
    """The largest batch size that fits among the config's own, doubled or halved again and again.

    Returns:
      That batch size, 0 where none fits, and `{batch size: fits}` of all that were compiled.
    """
    machine = devices(topology)
    tried: dict[int, bool] = {}

    def fits(size: int) -> bool:
        tried[size] = _job(_changed(config, {"train.batch_size": size}), machine).update().fits
        return tried[size]

    size = config.train.batch_size
    if fits(size):
        while 2 * size <= most and fits(2 * size):
            size *= 2
        return size, tried
    while size % 2 == 0:
        size //= 2
        try:
            if fits(size):
                return size, tried
        except UserError:  # too small for the mesh or the micro-batches
            break
    return 0, tried


def _job(config: ConfigDict, machine: Sequence[Any]) -> _Job:
    """A config's programs; the data are opened only where the method reads what images and labels do not show."""
    try:
        job = _Job(config, machine, _shapes(config))
        _ = job.traced  # raises where an entry is missing
    except KeyError:
        batch = next(make_loader(config, training_sources(config)))
        job = _Job(config, machine, {k: (v.shape, v.dtype) for k, v in batch.items()})
    return job


class _Job:
    """A config's programs on the devices of a machine, for batches of these shapes."""

    def __init__(self, config: ConfigDict, machine: Sequence[Any], shapes: Shapes):
        self.config, self.machine = config, machine
        train, sizes = config.train, config.mesh
        micro = train.batch_size // train.accumulate
        self.mesh = make_mesh(sizes.data, micro, sizes.fsdp, sizes.tensor, machine)
        self.method = make_method(config)
        given = _given(config, self.mesh)
        rows = over_data(self.mesh)
        self.example = {k: jax.ShapeDtypeStruct(s, np.dtype(d), sharding=rows) for k, (s, d) in shapes.items()}
        self.stages = Stages(config, self.method, self.mesh, given, self.example)
        self.stage = self.method.stages[-1][1]
        self.state = self.stages.abstract(self.stage)
        self.frozen = self.stages.frozen(self.state)
        self._batches = (self.example,) * draws(self.method.turns(self.stage))

    def parts(self) -> dict[str, int]:
        """Bytes of the state on one device."""
        state = self.state
        return {
            "parameters": bytes_per_device(state.params),
            "optimiser": bytes_per_device(state.opt_state),
            "EMA": bytes_per_device(state.ema),
            "memory": bytes_per_device((state.memory, state.step, state.images, state.bad)),
            "frozen": bytes_per_device(self.frozen),
        }

    def update(self) -> Program:
        """The update of a step on which every turn is due."""
        images = self.config.train.batch_size * len(self._batches)
        parts = {**self.parts(), "batch": bytes_per_device(self._batches)}
        return self._program("update", self.traced, images, parts)

    @functools.cached_property
    def traced(self) -> Any:
        """The update, traced for its shapes."""
        config = self.config
        function = make_update(
            self.method.turns(self.stage),
            self.stages.optimizers,
            self.mesh,
            seed=config.seed,
            images_per_step=config.train.batch_size * len(self._batches),
            ema_decay=config.train.ema_decay,
            accumulate=config.train.accumulate,
            flip=config.data.flip,
            crop=config.data.crop,
            shardings=self.stages.shardings(self.state),
        )
        return function.trace(self.state, self.frozen, self._batches)

    def sampler(self) -> Program:
        """The sampler at `config.evaluate.batch_size`.

        Raises:
          UserError: where only data that are not here show what it is conditional on.
        """
        size = self.config.evaluate.batch_size
        mesh = make_mesh(0, size, self.config.mesh.fsdp, self.config.mesh.tensor, self.machine)
        generator = Generator(self.method, self.config, mesh=mesh)
        layout = Layout.of(self.config, mesh)
        params = {**self.frozen, **self.state.params, **self.state.ema}
        model = Model(params=params, memory=self.state.memory, stage=self.stage)
        model = jax.tree.map(
            lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), model, layout.model(model)
        )
        parts = {"parameters": bytes_per_device(model.params)}
        return self._program("sampler", generator.trace("sample", model), size, parts)

    def _program(self, name: str, traced: Any, images: int, parts: dict[str, int]) -> Program:
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
        memory["total"] = arguments + sum(memory[k] or 0 for k in ("temporaries", "results", "code"))
        memory["limit"] = limit
        cost = compiled.cost_analysis() or {}
        text = compiled.as_text()
        trips = flops.longest_scan(traced.jaxpr)  # the compiler counts a loop's body once
        counted = float(cost.get("flops", 0.0)) if trips == 1 else work * images / self.mesh.size
        traffic = float(cost.get("bytes accessed", 0.0)) * trips
        collectives = hlo.collectives(text, trips)
        known = roofline.chip(self.machine[0])
        estimate = roofline.estimate(counted, traffic, collectives, known) if known else None
        fits = memory["total"] <= limit
        kinds = _by_kind(collectives)
        return Program(name, images, fits, memory, work, counted, traffic, kinds, estimate, seconds)


def _shapes(config: ConfigDict) -> Shapes:
    """`{entry: (shape, dtype)}` of a batch of images and, where there are classes, labels; of every source."""
    size = config.train.batch_size
    found: Shapes = {}
    for name in ("", *config.data.extra):
        prefix = f"{name}_" if name else ""
        found[f"{prefix}image"] = ((size, *image_shape(config)), np.uint8)
        if config.data.num_classes:
            found[f"{prefix}label"] = ((size,), np.int32)
    return found


def _given(config: ConfigDict, mesh: Mesh) -> Given:
    """What `config.init_from` would load, as shapes."""
    layout, params, memory = Layout.of(config, mesh), {}, {}
    for group, source in config.init_from.items():
        if not source:
            continue
        weights, carried, _ = load_group(source, group)
        placed = layout.params({group: weights})[group]
        params[group] = jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), weights, placed)
        if carried is not None:
            memory[group] = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), carried)
    return Given(params, memory, {})


def _mends(
    config: ConfigDict,
    machine: Sequence[Any],
    candidates: Sequence[dict[str, Any]],
    compiled: Callable[[_Job], Program],
) -> tuple[Mend, ...]:
    """Changes that were compiled, in turn, up to the first that fits."""
    tried: list[Mend] = []
    for overrides in candidates:
        try:
            program = compiled(_job(_changed(config, overrides), machine))
        except UserError:  # a change that this config cannot take
            continue
        tried.append(Mend(overrides, program.fits, program.memory["total"]))
        if program.fits:
            break
    return tuple(tried)


def _candidates(config: ConfigDict, count: int) -> list[dict[str, Any]]:
    """Overrides to try in turn: all of fsdp, then remat, then both, then micro-batches, then smaller batches."""
    network, batch = config.method.get("network", {}), config.train.batch_size
    most = math.gcd(batch // config.train.accumulate, count // config.mesh.tensor)
    split = {"mesh.data": 0, "mesh.fsdp": most}
    splits = [split] if split["mesh.fsdp"] > config.mesh.fsdp else []
    again = [{"method.network.remat": "block"}] if _has_remat(network) and not network.get("remat") else []
    both = {**(splits[0] if splits else {}), **(again[0] if again else {})}
    found = [*splits, *again, both] if splits and again else [*splits, *again]
    parts = config.train.accumulate * 2
    while batch % parts == 0:
        found.append({**both, "train.accumulate": parts})
        parts *= 2
    smaller = batch // 2
    while smaller and batch % smaller == 0:
        found.append({**both, "train.batch_size": smaller})
        smaller = smaller // 2 if smaller % 2 == 0 else 0
    return found


def _smaller(config: ConfigDict) -> list[dict[str, Any]]:
    """Overrides for a sampler that does not fit."""
    size = config.evaluate.batch_size
    return [{"evaluate.batch_size": size // 2**k} for k in range(1, 11) if size % 2**k == 0]


def _has_remat(network: Any) -> bool:
    name = network.get("name", "") if network else ""
    if not name:
        return False
    return "remat" in getattr(lookup(name, "jaxgen.networks", "config.method.network.name"), "__dataclass_fields__", {})


def _changed(config: ConfigDict, overrides: dict[str, Any]) -> ConfigDict:
    changed = ConfigDict(config.to_dict(), type_safe=False)
    for key, value in overrides.items():
        *path, last = key.split(".")
        inner = changed
        for part in path:
            inner = inner[part]
        inner[last] = value
    return changed


def _by_kind(collectives: Sequence[hlo.Collective]) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {}
    for each in collectives:
        entry = found.setdefault(each.kind, {"count": 0, "bytes": 0.0, "moved": 0.0})
        entry["count"] += each.times
        entry["bytes"] += each.times * each.size
        entry["moved"] += each.moved
    return found


def refused(message: str, arguments: float, limit: float) -> dict[str, float | None]:
    """`total`, `limit` and, where it is said, `temporaries`, in bytes, of a program that the compiler refused.

    Args:
      message: the compiler's. arguments: bytes of what the program is given. limit: where the message names none.
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


def _unknown(machine: Sequence[Any]) -> list[str]:
    kind = machine[0].device_kind
    return [
        f"There are no public peaks for the device {kind!r}: no time is estimated. Its memory is taken to be this "
        f"machine's, shared by {len(machine)} devices."
    ]
