"""The state of a run: one pytree, donated and checkpointed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxgen.errors import UserError
from jaxgen.methods.base import Method, Model, Params, State, check_loaded
from jaxgen.runs.optim import Optimizer


def seed_key(seed: int | jax.Array, purpose: str) -> jax.Array:
    """The root of the random keys of one purpose; all others are folded from it, none is stored."""
    return fold_name(jax.random.key(seed), purpose)


def fold_name(key: jax.Array, name: str) -> jax.Array:
    """Folds a name into a key, the same in every process and Python."""
    value = 0
    for byte in name.encode():
        value = (value * 257 + byte) % (2**31 - 1)
    return jax.random.fold_in(key, value)


def begin(
    method: Method,
    init: Callable[..., tuple[Params, dict[str, Any]]],
    optimizers: dict[str, Optimizer],
    key: jax.Array,
    batch: dict[str, jax.Array],
    given: Params,
    memory: dict[str, Any],
) -> State:
    """The state at the start of a run, with loaded weights, and their memory, where given. Runs under jit.

    Args:
      init: the method's, or that jitted.
    """
    stage = method.stages[0][1]
    params, fresh = init(key, batch, stage=stage, given=given, params={}, memory=memory)
    for group in sorted(params.keys() & given.keys()):
        check_loaded(group, given[group], params[group])
        params = {**params, group: given[group]}
    for name in sorted(fresh.keys() & memory.keys()):
        check_loaded(name, memory[name], fresh[name])
    return _fresh(method, optimizers, stage, params, {**fresh, **memory}, {}, 0, 0)


def cross(
    method: Method,
    init: Callable[..., tuple[Params, dict[str, Any]]],
    optimizers: dict[str, Optimizer],
    key: jax.Array,
    batch: dict[str, jax.Array],
    given: Params,
    state: State,
    stage: int,
) -> State:
    """The state at the start of a later stage: optimiser state anew, EMA kept where shapes are. Under jit."""
    params, memory = init(key, batch, stage=stage, given=given, params=state.params, memory=state.memory)
    return _fresh(method, optimizers, stage, params, memory, state.ema, state.step, state.images)


def _fresh(
    method: Method,
    optimizers: dict[str, Optimizer],
    stage: int,
    params: Params,
    memory: dict[str, Any],
    ema: Params,
    step: Any,
    images: Any,
) -> State:
    averaged = [g for g in params if method.ema_groups is None or g in method.ema_groups]
    # an entry that init passes through as it is could share its buffer with what it came from
    params, memory = jax.tree.map(jnp.copy, (params, memory))
    return State(
        step=jnp.asarray(step, jnp.int32),
        images=jnp.asarray(images, jnp.uint32),
        params=params,
        memory=memory,
        opt_state={g: optimizers[g].init(params[g]) for g in params},
        ema={g: _carry_over(ema.get(g, {}), params[g]) for g in averaged},
        nonfinite_count={turn.name: jnp.zeros((), jnp.int32) for turn in method.turns(stage)},
    )


def _carry_over(old: Any, new: Any) -> Any:
    """Leaves of `old` where `new` has one of that path and shape, else copies of `new`'s."""
    kept = {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_flatten_with_path(old)[0]}

    def choose(path: Any, leaf: jax.Array) -> jax.Array:
        before = kept.get(jax.tree_util.keystr(path))
        return before if before is not None and before.shape == leaf.shape else jnp.copy(leaf)

    return jax.tree_util.tree_map_with_path(choose, new)


def model(state: State, frozen: Params, stage: int, ema: bool = True) -> Model:
    """What sampling and judging see: EMA over learned over frozen parameters."""
    averaged = state.ema if ema else {}
    return Model(params={**frozen, **state.params, **averaged}, memory=state.memory, stage=stage)


def stage_at(method: Method, images: int) -> int:
    """The stage that runs at so many images."""
    return [stage for start, stage in method.stages if images >= start][-1]


def check_groups(method: Method, learned: tuple[str, ...], given: Params) -> None:
    """Raises a UserError where a group that the method needs was not given, or one that it lacks was."""
    for group in method.required_groups:
        if group not in given:
            name = type(method).__name__
            raise UserError(f"{name} needs trained weights: set config.init_from.{group}=<workdir of a run>.")
    for group in given:
        if group not in learned and group not in method.required_groups:
            known = ", ".join((*learned, *method.required_groups))
            raise UserError(f"config.init_from.{group}: the method has no such group; it has {known}.")
