"""Says what a run needs of a machine, before there is one: compiles its real update and sampler ahead of time.

The shapes of the state come from the config, the devices from a topology (`jaxgen.planning.topology`); nothing is
computed, no array exists and no data set is opened unless a method wants what its config does not show.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from jaxgen.errors import UserError
from jaxgen.planning import roofline
from jaxgen.planning.programs import Job, Program, job_of
from jaxgen.planning.topology import devices
from jaxgen.registry import find

# JAX's settings, between -1 and 1, in the environment as JAX_<NAME>: lower values make compilation of large networks
# much faster
EFFORTS = ("exec_time_optimization_effort", "memory_fitting_effort")

FAR = 2.0  # the compiler saves memory where it runs out, so that proportions are no more than a hint
MOST_PARTS = 8  # micro-batches that a suggestion may ask for: they are unrolled, and compile that much longer


@dataclasses.dataclass(frozen=True)
class Suggestion:
    """Describes a change of the config that was compiled because the config did not fit."""

    overrides: dict[str, Any]  # {key: value}
    fits: bool  # whether the changed config fits
    total: float | None  # bytes that it needs on a device, where the compiler says so


@dataclasses.dataclass(frozen=True)
class Plan:
    """Says what a config needs of a machine."""

    topology: str  # the machine's name, such as "v5e:2x4"
    device: str  # the kind of its devices
    mesh: dict[str, int]  # devices on each axis
    batch_size: int  # of the config, as `accumulate` is
    accumulate: int
    parameters: int  # how many learn, over all groups
    state: dict[str, int]  # bytes on one device, by part
    programs: tuple[Program, ...]  # the update, lazy turns and, where the method samples, the sampler
    suggestions: tuple[Suggestion, ...] = ()  # changes that were compiled where something does not fit
    batches: dict[int, bool] = dataclasses.field(default_factory=dict)  # {batch size: fits} that a search tried
    assumptions: tuple[str, ...] = ()  # sentences that belong beside the estimates

    @property
    def fits(self) -> bool:
        """Returns whether all programs fit."""
        return all(program.fits for program in self.programs)

    def to_dict(self) -> dict[str, Any]:
        """Returns what `plan.json` holds."""
        entries = dataclasses.asdict(self)
        for entry, program in zip(entries["programs"], self.programs, strict=True):
            if program.estimate is not None:
                entry["estimate"] |= {name: getattr(program.estimate, name) for name in ("least", "most", "bound")}
        return {**entries, "fits": self.fits}


def plan(config: ConfigDict, topology: str, sampler: bool = True, suggest: bool = True) -> Plan:
    """Compiles a checked config's update, and its sampler, for a machine.

    Args:
      sampler: whether that is compiled too.
      suggest: whether to look for a change that fits where the update does not.

    Raises:
      UserError: as training would, or where the topology means no machine.
    """
    machine = devices(topology)
    job = job_of(config, machine)
    programs = [job.update(), *job.lazy_turns()]
    suggestions: tuple[Suggestion, ...] = ()
    known = roofline.chip(machine[0])
    sentences = [*job.absent, *_effort(), *(roofline.assumptions(known) if known else _unknown(machine))]
    refused = [program for program in programs if not program.fits]
    if refused:
        candidates = _candidates(config, len(machine)) if suggest else []
        suggestions = _suggestions(config, machine, candidates, Job.tightest, refused[0])
    elif sampler and job.method.has_sampler:
        try:
            programs.append(job.sampler())
        except UserError as error:  # conditions that only the data can show, and those are not here
            sentences = [*sentences, f"The sampler was not planned: {error}"]
        if suggest and not programs[-1].fits:
            suggestions = _suggestions(config, machine, _smaller(config), Job.sampler, programs[-1])
    return Plan(
        topology=topology,
        device=str(machine[0].device_kind),
        mesh=dict(job.mesh.shape),
        batch_size=config.train.batch_size,
        accumulate=config.train.accumulate,
        parameters=sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(job.state.params)),
        state=job.parts(),
        programs=tuple(programs),
        suggestions=suggestions,
        assumptions=tuple(sentences),
    )


def _effort() -> list[str]:
    """Says what JAX was told of the compiler's effort, where it was told anything."""
    effort = {name: getattr(jax.config, f"jax_{name}") for name in EFFORTS}
    words = ", ".join(f"{name}={value:g}" for name, value in effort.items() if value)
    said = f"Compiled with {words}: a run's own compilation may find faster programs, or smaller ones."
    return [said] if words else []


def find_batch(config: ConfigDict, topology: str, most: int = 2**20) -> tuple[int, dict[int, bool]]:
    """Returns the largest batch size that fits, among the config's own doubled or halved again and again.

    Returns:
      That batch size, 0 where none fits, and `{batch size: fits}` of all that were compiled.
    """
    machine, size = devices(topology), config.train.batch_size
    first = job_of(config, machine).tightest()
    tried = {size: first.fits}
    if first.fits:
        while tried[size] and 2 * size <= most:
            size *= 2
            tried[size] = job_of(_changed(config, {"train.batch_size": size}), machine).tightest().fits
        return max(size for size, fits in tried.items() if fits), tried
    smaller = [{"train.batch_size": half} for half in _halves(size)]
    suggestions = _suggestions(config, machine, smaller, lambda job: job.tightest(), first)
    tried |= {each.overrides["train.batch_size"]: each.fits for each in suggestions}
    return min(tried) if any(tried.values()) else 0, tried


def _suggestions(
    config: ConfigDict,
    machine: Sequence[jax.Device],
    candidates: Sequence[dict[str, Any]],
    compiled: Callable[[Job], Program],
    refused: Program,
) -> tuple[Suggestion, ...]:
    """Compiles changes in turn, up to the first that fits, and returns them.

    A change that only makes batches smaller is not compiled if, by the last program, it would still need far too much.
    """
    tried: list[Suggestion] = []
    last, images = refused, _at_once(config)
    for overrides in candidates:
        changed = _changed(config, overrides)
        fewer = images / _at_once(changed)
        if fewer < 1 or (fewer > 1 and _far_over(last, fewer)):  # below 1: more than what did not fit
            continue
        try:
            program = compiled(job_of(changed, machine))
        except UserError:  # a change that this config cannot take
            continue
        last, images = program, _at_once(changed)
        tried.append(Suggestion(overrides, program.fits, program.memory["total"]))
        if program.fits:
            break
    return tuple(tried)


def _at_once(config: ConfigDict) -> int:
    """Returns the images in memory at a time, in the update's micro-batch and in the sampler's batch.

    A change alters one of the two.
    """
    return config.train.batch_size // config.train.accumulate * config.evaluate.batch_size


def _far_over(program: Program, fewer: float) -> bool:
    """Returns whether a program with so many times fewer images would still need over `FAR` times the memory there is.

    All but the state is taken to shrink in proportion.
    """
    total, limit = program.memory["total"], program.memory["limit"]
    if total is None or limit is None:
        return False
    return program.state + (total - program.state) / fewer > FAR * limit


def _candidates(config: ConfigDict, count: int) -> list[dict[str, Any]]:
    """Returns overrides to try in turn: all of fsdp, remat, both, micro-batches, and smaller batches."""
    network, batch = config.method.get("network", {}), config.train.batch_size
    if isinstance(network, str):  # a bare name has no keys to override
        network = {}
    most = math.gcd(batch // config.train.accumulate, count // config.mesh.tensor)
    splits: list[dict[str, Any]] = []
    again: list[dict[str, Any]] = []
    if most > config.mesh.fsdp:
        splits.append({"mesh.data": 0, "mesh.fsdp": most})
    if _has_remat(network) and not network.get("remat"):
        again.append({"method.network.remat": "block"})
    both = {**(splits[0] if splits else {}), **(again[0] if again else {})}
    found = [*splits, *again, both] if splits and again else [*splits, *again]
    parts = config.train.accumulate * 2
    while batch % parts == 0 and parts <= MOST_PARTS:
        found.append({**both, "train.accumulate": parts})
        parts *= 2
    return found + [{**both, "train.batch_size": half} for half in _halves(batch)]


def _smaller(config: ConfigDict) -> list[dict[str, Any]]:
    """Returns overrides for a sampler that does not fit."""
    return [{"evaluate.batch_size": half} for half in _halves(config.evaluate.batch_size)[:10]]


def _halves(size: int) -> list[int]:
    """Returns half of a number, half of that, and so on, as long as they are integers."""
    return [size // 2**k for k in range(1, size.bit_length()) if size % 2**k == 0]


def _has_remat(network: Mapping[str, Any]) -> bool:
    name = network.get("name", "") if network else ""
    if not name:  # changes to the network of a folder
        return "remat" in network
    return "remat" in getattr(find("network", name, "config.method.network.name"), "__dataclass_fields__", {})


def _changed(config: ConfigDict, overrides: dict[str, Any]) -> ConfigDict:
    changed = ConfigDict(config.to_dict(), type_safe=False)
    for key, value in overrides.items():
        *path, last = key.split(".")
        inner = changed
        for part in path:
            inner = inner[part]
        inner[last] = value
    return changed


def _unknown(machine: Sequence[jax.Device]) -> list[str]:
    kind = machine[0].device_kind
    return [
        f"There are no public peaks for the device {kind!r}: no time is estimated. Its memory is taken to be this "
        f"machine's, shared by {len(machine)} devices."
    ]
