"""How the rows of a batch lie on many devices: always split over them, also where weights are split otherwise.

The partitioner (Xu et al. 2021, "GSPMD") guesses where an array lies that nothing constrains. Weights that are split
over `fsdp` make it split activations by feature, and each layer then sends activations and not its weights.
"""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterator
from typing import Any

import jax

_sharding: contextvars.ContextVar[jax.sharding.NamedSharding | None]
_sharding = contextvars.ContextVar("sharding of rows", default=None)


@contextlib.contextmanager
def rows_sharded_as(sharding: jax.sharding.NamedSharding) -> Iterator[None]:
    """While a loss is traced inside this block, `shard_rows` and `keep_rows_sharded` split rows as `sharding` says."""
    token = _sharding.set(sharding)
    try:
        yield
    finally:
        _sharding.reset(token)


def shard_rows(tree: Any) -> Any:
    """Arrays `[B, ...]` that a loss made up (a GAN's z), split over the devices as the batch is.

    What is computed from a batch lies where the batch does. A z is drawn and not computed from the batch: without this
    call every device would make, and look at, all of a step's fakes. Outside `rows_sharded_as` the tree is unchanged.
    """
    sharding = _sharding.get()
    if sharding is None:
        return tree
    return jax.tree.map(lambda x: jax.lax.with_sharding_constraint(x, sharding), tree)


def keep_rows_sharded(x: jax.Array) -> jax.Array:
    """`x` `[B, ...]`, a network's activation, with its rows split over the devices as those of the batch.

    Where all weights are replicated nothing needs to be said, and `x` itself is returned.
    """
    sharding = _sharding.get()
    if sharding is None or all(size == 1 for axis, size in sharding.mesh.shape.items() if axis != "data"):
        return x
    return jax.lax.with_sharding_constraint(x, sharding)
