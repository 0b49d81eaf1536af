"""From a config to the objects that a run is made of: method, data, optimisers, frozen groups."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from jaxgen.build import build
from jaxgen.config import image_shape
from jaxgen.data import Loader, Source, open_source
from jaxgen.data.transforms import prepare
from jaxgen.errors import UserError
from jaxgen.interop.diffusers_pipeline import read_pipeline
from jaxgen.methods.base import Method, Params, State
from jaxgen.parallel.mesh import replicated
from jaxgen.parallel.sharding import Layout
from jaxgen.registry import find
from jaxgen.runs import state as states
from jaxgen.runs.checkpoint import load_group
from jaxgen.runs.optim import Optimizer, optimizers


def make_method(config: ConfigDict) -> Method:
    """The config's method, with its sampler and the data's shape filled in.

    Raises:
      UserError: naming a key that is unknown, missing or of a wrong type.
    """
    given: dict[str, Any] = {
        "image_shape": image_shape(config),
        "num_classes": int(config.data.num_classes),
    }
    fields = {f.name for f in dataclasses.fields(find("method", config.method.name, "config.method.name"))}
    sampler = {key: value for key, value in config.sampler.items() if key != "guidance_scale"}
    guidance = _guidance(config)
    if "sampler" in fields:
        given["sampler"] = build(sampler, "sampler", "config.sampler")
    elif len(config.sampler):
        raise UserError(f"config.sampler is set, but the method {config.method.name!r} takes no sampler; remove it.")
    if "guidance" in fields and guidance:
        given["guidance"] = build(guidance, "guidance", "config.guidance", **given)
    elif guidance:
        raise UserError(f"config.guidance is set, but the method {config.method.name!r} takes none; remove it.")
    if config.init_from.get("pretrained"):
        given |= read_pipeline(config.init_from.pretrained).method_fields()
        if "spacing" in config.sampler:
            del given["spacing"]
    return build(config.method, "method", "config.method", **given)


def _guidance(config: ConfigDict) -> dict[str, Any]:
    """`config.guidance`; `config.sampler.guidance_scale` is short for classifier-free guidance of that scale."""
    guidance = dict(config.guidance.items())
    if config.sampler.get("guidance_scale") is None or guidance.get("name", "classifier_free") != "classifier_free":
        return guidance
    return {"name": "classifier_free", "scale": config.sampler.guidance_scale, **guidance}


def training_sources(config: ConfigDict) -> dict[str, Source]:
    """The named sources that training draws from; the main one's name is empty."""
    data = config.data
    sources = {"": open_split(config, data.split)}
    for name, extra in data.extra.items():
        sources[name] = open_split(config, extra["split"], source=extra["source"])
    return sources


def open_split(config: ConfigDict, split: str, source: str | None = None) -> Source:
    """One split of the config's data."""
    height, width, channels = image_shape(config)
    return open_source(
        source or config.data.source,
        split,
        resolution=(height, width),
        channels=channels,
        num_classes=0 if source else config.data.num_classes,
        root=config.data.root or None,
    )


def make_loader(config: ConfigDict, sources: dict[str, Source]) -> Loader:
    return Loader(
        sources,
        config.train.batch_size,
        config.seed,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        workers=config.data.workers,
    )


@dataclasses.dataclass(frozen=True)
class LoadedGroups:
    """What `config.init_from` loads.

    Attributes:
      params: `{group: parameters}`. memory: `{group: entry}` that came along. origins: what to record of each.
    """

    params: Params
    memory: dict[str, Any]
    origins: dict[str, dict[str, Any]]


def load_groups(config: ConfigDict, mesh: Mesh, before: dict[str, dict[str, Any]]) -> LoadedGroups:
    """Loads every group of `config.init_from`.

    Args:
      before: the origins that a checkpoint of this run recorded; the same weights are loaded again, even where
        the other run has been trained further.

    Raises:
      UserError: where a source cannot be read, or its weights are not those that this run began with.
    """
    params, memory, origins = {}, {}, {}
    layout = Layout.of(config, mesh)
    for group, source in config.init_from.items():
        if not source:
            continue
        known = before.get(group)
        weights, carried, origin = load_group(source, group, known and known["step"])
        if known and known["sha256"] != origin["sha256"]:
            raise UserError(
                f"config.init_from.{group}: the weights in {source} are not those that this run began with "
                f"(step {known['step']} there); restore them, or begin again in another workdir."
            )
        origins[group] = origin
        params[group] = jax.device_put(weights, layout.params({group: weights})[group])
        if carried is not None:
            memory[group] = jax.device_put(carried, replicated(mesh))
    return LoadedGroups(params, memory, origins)


class StateBuilder:
    """Builds states: fresh, at a boundary, or as shapes for a checkpoint of any stage.

    Args:
      example: one placed batch, for shapes and for initialisations that look at data; shapes are enough for
        `abstract`.
    """

    def __init__(self, config: ConfigDict, method: Method, mesh: Mesh, given: LoadedGroups, example: dict[str, Any]):
        self.method, self.mesh, self.given, self.example = method, mesh, given, example
        # threefry takes four times as long to compile for a network's many small draws; nothing but the
        # initial weights depends on these, which checkpoints hold
        self._key = states.fold_name(jax.random.key(config.seed, impl="rbg"), "init")
        self.layout = Layout.of(config, mesh)
        # jitted to be traced once: it is asked for its groups, for the state's shapes and for the state
        self._init = jax.jit(_init_of(method), static_argnames="stage")
        groups = self._groups()
        states.check_groups(method, groups, given.params)
        self.optimizers: dict[str, Optimizer] = optimizers(config, groups)

    def _groups(self) -> tuple[str, ...]:
        """Every group that learns at some stage."""
        found: dict[str, None] = {}
        trees: list[Params] = [self.given.params]
        params: Params = {}
        memory: dict[str, Any] = self.given.memory
        for _, stage in self.method.stages:
            first = not found
            call = functools.partial(self._start, stage)
            params, memory = jax.eval_shape(call, self._key, self.example, self.given.params, params, memory)
            memory = {**memory, **self.given.memory} if first else memory
            found.update(dict.fromkeys(params))
            trees.append(params)
        self.layout.check(*trees)
        return tuple(found)

    def _start(self, stage: int, key: jax.Array, example: Any, given: Params, params: Params, memory: dict[str, Any]):
        return self._init(key, prepare(example, key), stage=stage, given=given, params=params, memory=memory)

    def _begin(self, key: jax.Array, example: Any, given: Params, memory: dict[str, Any]) -> State:
        return states.begin(self.method, self._init, self.optimizers, key, prepare(example, key), given, memory)

    def _cross(self, stage: int, key: jax.Array, example: Any, given: Params, state: State) -> State:
        key = jax.random.fold_in(key, stage)
        batch = prepare(example, key)
        return states.cross(self.method, self._init, self.optimizers, key, batch, given, state, stage)

    def begin(self) -> State:
        """The state at the first stage's start."""
        start = jax.jit(self._begin, out_shardings=self._out(self.method.stages[0][1]))
        return start(self._key, self.example, self.given.params, self.given.memory)

    def cross(self, state: State, stage: int) -> State:
        """The state at the start of `stage`."""
        start = jax.jit(functools.partial(self._cross, stage), out_shardings=self._out(stage))
        return start(self._key, self.example, self.given.params, state)

    def _out(self, stage: int) -> Any:
        """Shardings of the state at a stage's start, so that nothing has to be whole on one device first."""
        if self.layout.all_replicated:
            return replicated(self.mesh)
        return jax.tree.map(lambda x: x.sharding, self.abstract(stage))

    def abstract(self, stage: int) -> State:
        """Shapes and shardings of the state at a stage, without computing it."""
        given = self.given
        state = jax.eval_shape(self._begin, self._key, self.example, given.params, given.memory)
        for _, later in self.method.stages:
            if later == self.method.stages[0][1]:
                continue
            if later > stage:
                break
            call = functools.partial(self._cross, later)
            state = jax.eval_shape(call, self._key, self.example, given.params, state)
        return self.layout.placed(state)

    def shardings(self, state: State) -> tuple[Any, Any] | None:
        """What `make_update` asks for: of the state and the frozen groups; None where all is whole everywhere."""
        if self.layout.all_replicated:
            return None
        return jax.tree.map(lambda x: x.sharding, (state, self.frozen(state)))

    def frozen(self, state: State) -> Params:
        """Given groups that do not learn."""
        return {g: p for g, p in self.given.params.items() if g not in state.params}


def _init_of(method: Method) -> Any:
    """A method's `init` as a function that can be hashed whatever the method's fields are."""

    def init(key: jax.Array, batch: Any, stage: int, given: Params, params: Params, memory: dict[str, Any]):
        return method.init(key, batch, stage, given, params, memory)

    return init
