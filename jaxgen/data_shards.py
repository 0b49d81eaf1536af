"""Rows of a batch on many devices: activations lie by rows, whatever their layers' weights are split over.

The partitioner (Xu et al. 2021, "GSPMD") guesses where a value lies that nothing pins. Weights that are split over
`fsdp` draw activations after them, feature by feature, and each layer then sends activations and not its weights.
"""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterator
from typing import Any

import jax

_rows: contextvars.ContextVar[jax.sharding.NamedSharding | None] = contextvars.ContextVar("rows", default=None)


@contextlib.contextmanager
def rows_lie(sharding: jax.sharding.NamedSharding) -> Iterator[None]:
    """What is traced herein splits the rows of `spread` and `pinned` arrays as `sharding` does those of the batch."""
    token = _rows.set(sharding)
    try:
        yield
    finally:
        _rows.reset(token)


def spread(tree: Any) -> Any:
    """Arrays `[B, ...]` that a loss made up, split over the devices as the batch is.

    What is computed from a batch lies where the batch does. A latent is not, and without this every device would
    make, and judge, all of a step's fakes.
    """
    sharding = _rows.get()
    if sharding is None:
        return tree
    return jax.tree.map(lambda x: jax.lax.with_sharding_constraint(x, sharding), tree)


def pinned(x: jax.Array) -> jax.Array:
    """`x` `[B, ...]` by rows, in a network whose weights may be split; `x` itself where all weights are whole."""
    sharding = _rows.get()
    if sharding is None or all(size == 1 for axis, size in sharding.mesh.shape.items() if axis != "data"):
        return x
    return jax.lax.with_sharding_constraint(x, sharding)
