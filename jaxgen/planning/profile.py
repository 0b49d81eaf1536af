"""Shows what a config's update and sampler spend their time on, on the machine that is here.

The real programs run on real data where those open, else on random ones of the same shapes; parameters are fresh, or
those of `config.init_from`. Nothing is trained: what the update makes is thrown away.
"""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from ml_collections import ConfigDict

from jaxgen.arrays import Metrics, Tree
from jaxgen.data.transforms import prepare
from jaxgen.errors import UserError
from jaxgen.methods.base import Model, Turn
from jaxgen.parallel.mesh import place
from jaxgen.parallel.sharding import Layout
from jaxgen.planning import flops, trace
from jaxgen.planning.programs import Job, job_of
from jaxgen.runs import state as states
from jaxgen.runs.loaded_groups import LoadedGroups, load_groups
from jaxgen.runs.setup import make_loader, training_sources
from jaxgen.runs.state_builder import StateBuilder
from jaxgen.train.update import draws

UPDATES = 5  # how many are traced
WARM = 2  # runs before a trace


@dataclasses.dataclass(frozen=True)
class Program:
    """Holds a program and what its runs spent their time on."""

    name: str  # update, "lazy turn <name>, every <n> steps", or sampler
    images: int  # of one run, over all devices
    runs: int  # how many were traced
    seconds: float  # median of one run while traced
    work: float  # FLOPs of matrix products and convolutions for one image
    operations: tuple[trace.Operation, ...] = ()  # all of them, the slowest first


@dataclasses.dataclass(frozen=True)
class Profile:
    """Holds what a config's programs spend their time on."""

    device: str  # its kind
    mesh: dict[str, int]  # devices on each axis
    data: str  # the source that the batch came from, or "random"
    programs: tuple[Program, ...]  # the update, lazy turns and, where the method samples, the sampler
    notes: tuple[str, ...]  # sentences on what differs from a real run

    def to_dict(self) -> dict[str, Any]:
        """Returns what `profile.json` holds."""
        return dataclasses.asdict(self)


def profile(config: ConfigDict, folder: epath.PathLike) -> Profile:
    """Runs a checked config's update, and its sampler, under `jax.profiler`, which writes to `folder`.

    Raises:
      UserError: as training would, or where another profiler is at work.
    """
    machine, notes = jax.devices(), []
    try:
        batch, data = next(make_loader(config, training_sources(config))), config.data.source
        job = Job(config, machine, {name: (x.shape, x.dtype) for name, x in batch.items()})
    except UserError as error:
        job, data = job_of(config, machine), "random"
        batch = _random_batch(job)
        notes.append(f"The data are random ones: {error}")
    loaded, absent = _loaded(job)
    placed = place(batch, job.mesh)
    builder = StateBuilder(config, job.method, job.mesh, loaded, placed)
    state = builder.begin()
    for _, stage in job.method.stages[1:]:
        state = builder.cross(state, stage)
    builder.release(state)
    del loaded  # it would keep what has just been released
    frozen = builder.frozen(state)

    held, folder = [state], epath.Path(folder)

    def timed(name: str, traced: jax.stages.Traced, turns: Sequence[Turn], images: int, place_of: str) -> Program:
        update, batches = traced.lower().compile(), (placed,) * draws(turns)

        def take() -> Metrics:
            held[0], metrics = update(held[0], frozen, batches)
            return metrics

        program = Program(name, images, UPDATES, 0.0, flops.count(traced.jaxpr) / images)
        return _traced(folder / place_of, program, update, take)

    found = [timed("update", job.trace_update(), job.turns, job.images, "update")]
    for name, turn in job.lazy.items():
        images = config.train.batch_size * turn.repeats
        found.append(timed(name, job.trace_lazy(name), (turn,), images, f"turn_{turn.name}"))
    if job.method.has_sampler:
        try:
            found.append(_sampler(job, states.model_of(held[0], frozen, job.stage), folder / "sampler"))
        except UserError as error:  # conditions that only the data can show, and those are not here
            notes.append(f"The sampler was not run: {error}")
    kind = str(job.mesh.devices.flat[0].device_kind)
    return Profile(kind, dict(job.mesh.shape), data, tuple(found), (*notes, *absent))


def _sampler(job: Job, model: Model, folder: epath.Path) -> Program:
    generator = job.generator
    model = jax.device_put(model, generator.layout.model(model))
    traced = generator.trace("sample", model)
    sampler = traced.lower().compile()
    index, conditions = generator.inputs()
    placed = place({**conditions, "index": index}, generator.mesh)
    numbers = placed.pop("index")
    size = generator.batch_size
    program = Program("sampler", size, 1, 0.0, flops.count(traced.jaxpr) / size)
    return _traced(folder, program, sampler, lambda: sampler(model, jnp.uint32(0), numbers, placed))


def _traced(folder: epath.Path, program: Program, compiled: jax.stages.Compiled, call: Callable[[], Tree]) -> Program:
    """Warms a program up, traces its runs, and reads the trace."""
    for _ in range(WARM):
        jax.block_until_ready(call())
    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0
    taken = []
    try:
        jax.profiler.start_trace(str(folder), profiler_options=options)
    except RuntimeError as error:
        raise UserError(f"The profiler cannot start: {str(error).splitlines()[0].rstrip('.')}.") from error
    try:
        for _ in range(program.runs):
            start = time.monotonic()
            jax.block_until_ready(call())
            taken.append(time.monotonic() - start)
    finally:
        jax.profiler.stop_trace()
    text = compiled.as_text() or ""
    module = text.partition("HloModule ")[2].partition(",")[0].strip()
    slowest = trace.operations(folder, {module: text}, {module: program.runs})[module]
    return dataclasses.replace(program, seconds=statistics.median(taken), operations=tuple(slowest))


def _loaded(job: Job) -> tuple[LoadedGroups, list[str]]:
    """Returns what `config.init_from` names; fresh weights of the config's own networks where that is not here."""
    if not job.absent:
        return load_groups(job.config, job.mesh, {}), []
    batch = {name: jnp.zeros(x.shape, x.dtype) for name, x in job.example.items()}
    corruptions = job.builder.corruptions
    make = jax.jit(lambda key: job.method.untrained(key, prepare(batch, key, corruptions=corruptions)))
    params, memory = make(jax.random.key(0))
    layout = Layout.of(job.config, job.mesh)
    placed = {group: jax.device_put(tree, layout.params({group: tree})[group]) for group, tree in params.items()}
    notes = [f"{sentence} All frozen weights are fresh ones." for sentence in job.absent]
    return LoadedGroups(placed, memory, {}), notes


def _random_batch(job: Job) -> dict[str, np.ndarray]:
    """Returns values of the right shapes: images of noise, labels that exist, tokens that begin a vocabulary."""
    chance = np.random.default_rng(job.config.seed)
    most = {"label": max(job.config.data.num_classes, 1)}
    found = {}
    for name, entry in job.example.items():
        limit = 256 if entry.dtype == np.uint8 else most.get(name.rpartition("_")[2], 2)
        found[name] = chance.integers(0, limit, entry.shape).astype(entry.dtype)
    return found
