"""Keeps the rows of a batch split over the devices, also where the weights are split in another way.

The partitioner (Xu et al. 2021, "GSPMD") guesses how to place an array that nothing constrains. Weights that are split
over `fsdp` make it split activations by feature, so that each layer sends activations and not its weights.
"""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterator
from typing import TypeVar

import jax

T = TypeVar("T")  # a tree of arrays

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


def shard_rows(tree: T) -> T:
    """Splits arrays `[B, ...]` that a loss creates (a GAN's z) over the devices as the batch is split.

    What is computed from a batch is split as the batch is. A z is drawn and not computed from the batch: without this
    call every device would make, and classify, all of a step's fakes. Outside `rows_sharded_as` the tree is unchanged.
    """
    sharding = _sharding.get()
    if sharding is None:
        return tree
    return jax.tree.map(lambda x: jax.lax.with_sharding_constraint(x, sharding), tree)


def keep_rows_sharded(x: jax.Array) -> jax.Array:
    """Returns a network's activation `x` `[B, ...]` with its rows split over the devices as those of the batch.

    Where all weights are replicated no constraint is needed, and `x` itself is returned.
    """
    sharding = _sharding.get()
    if sharding is None or all(size == 1 for axis, size in sharding.mesh.shape.items() if axis != "data"):
        return x
    return jax.lax.with_sharding_constraint(x, sharding)
