"""Builds the state of a run: fresh, at the start of a later stage, or as shapes for a checkpoint of any stage."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding
from ml_collections import ConfigDict

from jaxgen.arrays import Batch, Memory, Params, carry_over
from jaxgen.data.transforms import prepare
from jaxgen.errors import UserError
from jaxgen.methods.base import Method, State, learned_groups
from jaxgen.parallel.mesh import replicated
from jaxgen.parallel.sharding import Layout
from jaxgen.runs import state as states
from jaxgen.runs.loaded_groups import LoadedGroups
from jaxgen.runs.optim import Optimizer, optimizers
from jaxgen.runs.setup import make_corruptions

Example = Mapping[str, jax.Array | jax.ShapeDtypeStruct]  # one batch, or the shapes of one


class Inputs(NamedTuple):
    """Holds the arguments of the compiled programs that make a state, so that no weights are constants in them.

    Attributes:
      key: the random key of the initial weights.
      example: one batch as it comes from the loader.
      params, memory: those that `config.init_from` loaded.
    """

    key: jax.Array
    example: Example
    params: Params
    memory: Memory


class StateBuilder:
    """Builds the states of one run: `begin()` once, `cross(state, stage)`, and their shapes with `abstract(stage)`.

    Args:
      example: one placed batch, for shapes and for initialisations that look at data. Shapes are enough where only
        `abstract` is called.

    Attributes:
      optimizers: `{group: Optimizer}` of every group that learns at some stage.
      layout: where arrays are placed.
    """

    def __init__(self, config: ConfigDict, method: Method, mesh: Mesh, loaded: LoadedGroups, example: Example):
        self.method, self.mesh, self.corruptions = method, mesh, make_corruptions(config)
        self._averages = config.train.ema_decay > 0
        # threefry takes four times as long to compile for a network's many small draws; nothing but the
        # initial weights depends on these, which checkpoints hold
        key = states.fold_name(jax.random.key(config.seed, impl="rbg"), "init")
        self.inputs = Inputs(key, example, loaded.params, loaded.memory)
        self.layout = Layout.of(config, mesh)
        # jitted to be traced once: it is asked for its groups, for the state's shapes and for the state
        self._init = jax.jit(_init_of(method), static_argnames="stage")
        states.check_required(method, loaded.params)  # before `init` reads them
        groups = self._groups()
        states.check_groups(method, groups, loaded.params)
        if config.train.accumulate > 1 and method.whole_batch:
            raise UserError(
                f"config.train.accumulate={config.train.accumulate} cuts a batch into parts, and "
                f"{config.method.name!r} compares every example with all others of its batch: set "
                "config.train.accumulate=1. More devices (config.mesh) keep the whole batch."
            )
        if config.train.accumulate > 1:
            self._check_parts(config.train.accumulate)
        self.optimizers: dict[str, Optimizer] = optimizers(config, groups)

    @property
    def first_stage(self) -> int:
        """Returns the stage that a run begins with."""
        return self.method.stages[0][1]

    def begin(self) -> State:
        """Returns the state at the first stage's start."""
        return self.begin_program(self.inputs)

    @functools.cached_property
    def begin_program(self) -> jax.stages.Wrapped:
        """Returns `begin` as a jitted function of `inputs`."""
        return jax.jit(self._begin, out_shardings=self._out_shardings(self.first_stage))

    def cross(self, state: State, stage: int) -> State:
        """Returns the state at the start of a later stage."""
        program = jax.jit(functools.partial(self._cross, stage), out_shardings=self._out_shardings(stage))
        return program(self.inputs._replace(params=self.frozen(state), memory={}), state)

    def release(self, state: State) -> None:
        """Frees the loaded copies of what is now in the state: of the groups that learn, and of the memory.

        Their shapes stay, and so do the groups that do not learn, or do not learn yet.
        """
        learned = {group: params for group, params in self.inputs.params.items() if group in state.params}
        shapes = jax.tree.map(_shape, (learned, self.inputs.memory))
        self.inputs = self.inputs._replace(params={**self.inputs.params, **shapes[0]}, memory=shapes[1])

    def abstract(self, stage: int) -> State:
        """Returns shapes and shardings of the state at a stage, without computing it."""
        state = jax.eval_shape(self._begin, self.inputs)
        for _, later in self.method.stages:
            if later == self.first_stage:
                continue
            if later > stage:
                break
            state = jax.eval_shape(functools.partial(self._cross, later), self.inputs, state)
        return self.layout.placed(state)

    def frozen(self, state: State) -> Params:
        """Returns the loaded groups that do not learn."""
        return states.frozen_groups(self.inputs.params, state)

    def shardings(self, state: State) -> tuple[State, Params] | None:
        """Returns the shardings of the state and of the frozen groups; None where everything is replicated."""
        if self.layout.all_replicated:
            return None
        return jax.tree.map(lambda x: x.sharding, (state, self.frozen(state)))

    def _out_shardings(self, stage: int) -> State | NamedSharding:
        """Returns the shardings of the state at a stage's start, so that no device holds a complete array first."""
        if self.layout.all_replicated:
            return replicated(self.mesh)
        return jax.tree.map(lambda x: x.sharding, self.abstract(stage))

    def _groups(self) -> tuple[str, ...]:
        """Returns every group that learns at some stage. Rules of the layout that fit no parameter are found here."""
        found: dict[str, None] = {}
        trees: list[Params] = [self.inputs.params]
        for params, _ in self._shapes(self.inputs):
            found.update(dict.fromkeys(params))
            trees.append(params)
        self.layout.check(*trees)
        return tuple(found)

    def _shapes(self, inputs: Inputs) -> Iterator[tuple[Params, Memory]]:
        """Yields the shapes of the parameters and of the memory at the start of each stage."""
        params: Params = {}
        memory = inputs.memory
        for number, (_, stage) in enumerate(self.method.stages):
            params, memory = jax.eval_shape(functools.partial(self._call_init, stage), inputs, params, memory)
            memory = memory if number else {**memory, **inputs.memory}
            yield params, memory

    def _check_parts(self, count: int) -> None:
        """Checks that a loss which sees a batch in `count` parts finds memory that fits each of them.

        Raises:
          UserError: a memory entry has the shape of the batch.
        """
        part = {
            name: jax.ShapeDtypeStruct((x.shape[0] // count, *x.shape[1:]), x.dtype)
            for name, x in self.inputs.example.items()
        }
        pairs = zip(self._shapes(self.inputs), self._shapes(self.inputs._replace(example=part)), strict=True)
        for (_, whole), (_, of_part) in pairs:
            for name in whole:
                shapes = [[x.shape for x in jax.tree.leaves(memory[name])] for memory in (whole, of_part)]
                if shapes[0] != shapes[1]:
                    raise UserError(
                        f"config.train.accumulate={count} cuts a batch into parts, and the method "
                        f"{type(self.method).__name__} keeps memory in the shape of the whole batch: memory[{name!r}]. "
                        "Set config.train.accumulate=1, or give this memory a shape that does not depend on the batch."
                    )

    # The functions below run under jit, or as shapes under `jax.eval_shape`.

    def _begin(self, inputs: Inputs) -> State:
        params, memory = self._call_init(self.first_stage, inputs, {}, inputs.memory)
        learned = {group: inputs.params[group] for group in inputs.params.keys() & params.keys()}
        learned = {group: self.method.extended(group, tree, params[group]) for group, tree in learned.items()}
        params = states.with_loaded(params, learned)
        memory = {**states.with_loaded(memory, inputs.memory), **inputs.memory}
        return self._new_state(self.first_stage, params, memory, None)

    def _cross(self, stage: int, inputs: Inputs, state: State) -> State:
        # what learns already goes on from the state, so that its loaded copy need not be kept
        given = states.frozen_groups(inputs.params, state)
        inputs = inputs._replace(key=jax.random.fold_in(inputs.key, stage), params=given)
        params, memory = self._call_init(stage, inputs, state.params, state.memory)
        return self._new_state(stage, params, memory, state)

    def _call_init(self, stage: int, inputs: Inputs, params: Params, memory: Memory) -> tuple[Params, Memory]:
        example = cast(Batch, inputs.example)  # under a trace the entries are arrays, also where shapes were given
        batch = prepare(example, inputs.key, corruptions=self.corruptions)
        return self._init(inputs.key, batch, stage=stage, given=inputs.params, params=params, memory=memory)

    def _new_state(self, stage: int, params: Params, memory: Memory, before: State | None) -> State:
        """Returns a state with fresh optimisers, of the groups that a turn of the stage trains.

        Counters and, where shapes are kept, the EMA go on from the state `before`.
        """
        step, images, ema = (before.step, before.images, before.ema) if before is not None else (0, 0, {})
        method, turns = self.method, self.method.turns(stage)
        trained = learned_groups(method, stage)
        averaged = [g for g in params if self._averages and (method.ema_groups is None or g in method.ema_groups)]
        # an entry that init passes through as it is could share its buffer with what it came from
        params, memory = jax.tree.map(jnp.copy, (params, memory))
        return State(
            step=jnp.asarray(step, jnp.int32),
            images=jnp.asarray(images, jnp.uint32),
            params=params,
            memory=memory,
            opt_state={g: self.optimizers[g].init(params[g]) for g in params if g in trained},
            ema={g: carry_over(ema.get(g, {}), params[g]) for g in averaged},
            nonfinite_count={turn.name: jnp.zeros((), jnp.int32) for turn in turns},
        )


def _shape(x: jax.Array) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding)


def _init_of(method: Method) -> Callable[..., tuple[Params, Memory]]:
    """Returns a method's `init` as a function that can be hashed, whatever types the method's fields have."""

    def init(
        key: jax.Array, batch: Batch, stage: int, given: Params, params: Params, memory: Memory
    ) -> tuple[Params, Memory]:
        return method.init(key, batch, stage, given, params, memory)

    return init
