"""Holds functions of a run's state, which is one pytree, donated to each update and written to checkpoints.

`jaxgen.runs.state_builder` makes states; `jaxgen.methods.base.State` says what is in one.
"""

from __future__ import annotations

from collections.abc import Mapping

import jax

from jaxgen.arrays import Params, Tree
from jaxgen.errors import UserError
from jaxgen.methods.base import Method, Model, State, check_loaded


def seed_key(seed: int | jax.Array, purpose: str) -> jax.Array:
    """Returns the root key of one purpose; all keys of that purpose are folded from it, and none is stored."""
    return fold_name(jax.random.key(seed), purpose)


def fold_name(key: jax.Array, name: str) -> jax.Array:
    """Folds a name into a key; the result is the same in every process and Python."""
    value = 0
    for byte in name.encode():
        value = (value * 257 + byte) % (2**31 - 1)
    return jax.random.fold_in(key, value)


def with_loaded(fresh: Mapping[str, Tree], loaded: Mapping[str, Tree]) -> dict[str, Tree]:
    """Returns fresh entries, each replaced by the loaded one of its name where there is one.

    Raises:
      UserError: where a loaded entry has other arrays than the fresh one of its name.
    """
    for name in sorted(fresh.keys() & loaded.keys()):
        check_loaded(name, loaded[name], fresh[name])
    return {name: loaded.get(name, value) for name, value in fresh.items()}


def frozen_groups(loaded: Params, state: State) -> Params:
    """Returns the loaded groups that do not learn."""
    return {group: params for group, params in loaded.items() if group not in state.params}


def model_of(state: State, frozen: Params, stage: int, ema: bool = True) -> Model:
    """Returns the model for sampling and evaluation: each group's EMA, else its learned, else its frozen parameters.

    Args:
      ema: whether the EMA is used; if not, learned parameters come first.
    """
    averaged = state.ema if ema else {}
    return Model(params={**frozen, **state.params, **averaged}, memory=state.memory, stage=stage)


def stage_at(method: Method, images: int) -> int:
    """Returns the stage that runs when `images` training images have been seen."""
    return [stage for start, stage in method.stages if images >= start][-1]


def unreached(method: Method, total_images: int) -> str:
    """Says which stages of a method a run of so many images ends before; "" where it reaches all."""
    missed = [stage for start, stage in method.stages if start >= total_images]
    if not missed:
        return ""
    last = method.stages[-1][0]
    return (
        f"the run ends at {total_images} images, before {len(missed)} of the {len(method.stages)} stages of "
        f"{type(method).__name__} begin: the last one begins at {last}, so set a higher config.train.total_images"
    )


def check_required(method: Method, loaded: Params) -> None:
    """Raises a UserError where a group that the method requires was not loaded."""
    for group in method.required_groups:
        if group not in loaded:
            name = type(method).__name__
            raise UserError(f"{name} needs trained weights: set config.init_from.{group}=<workdir of a run>.")


def check_groups(method: Method, learned: tuple[str, ...], loaded: Params) -> None:
    """Compares the groups that `config.init_from` loaded with those of the method.

    Raises:
      UserError: where a group that the method requires was not loaded, or one was loaded that it does not have.
    """
    check_required(method, loaded)
    for group in loaded:
        if group not in learned and group not in method.required_groups:
            known = ", ".join((*learned, *method.required_groups))
            raise UserError(f"config.init_from.{group}: the method has no such group; it has {known}.")
