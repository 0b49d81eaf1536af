"""The named mesh, and where batches and state lie on it. One device and many are the same code."""

from __future__ import annotations

import math
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxgen.errors import UserError


def make_mesh(data: int, batch_size: int) -> Mesh:
    """A mesh with the axis `data`.

    Args:
      data: devices on the axis; 0 takes as many as divide the batch.
      batch_size: images per micro-batch, over all devices.

    Raises:
      UserError: where an explicit number does not divide the batch or is not there.
    """
    devices = jax.devices()
    if data == 0:
        data = math.gcd(batch_size, len(devices))
    elif data < 0 or data > len(devices):
        raise UserError(f"config.mesh.data={data}, but there are {len(devices)} devices; use at most that many.")
    elif batch_size % data:
        raise UserError(
            f"config.mesh.data={data} does not divide a (micro-)batch of {batch_size} images; "
            "change config.train.batch_size, or leave config.mesh.data=0 to have it chosen."
        )
    return Mesh(np.asarray(devices[:data]), ("data",))


def replicated(mesh: Mesh) -> NamedSharding:
    """Whole on every device: parameters, optimiser state, metrics."""
    return NamedSharding(mesh, PartitionSpec())


def over_data(mesh: Mesh) -> NamedSharding:
    """The leading axis split over `data`: batches and keys."""
    return NamedSharding(mesh, PartitionSpec("data"))


def place(batch: dict[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """This process's rows of a batch, as arrays over the whole mesh."""
    sharding = over_data(mesh)
    return {k: jax.make_array_from_process_local_data(sharding, v) for k, v in batch.items()}


def must_await(mesh: Mesh) -> bool:
    """Whether each program must end before the next is dispatched: several sharded programs in flight can
    deadlock on a CPU with more than one device (and waiting costs nothing there)."""
    return mesh.size > 1 and mesh.devices.flat[0].platform == "cpu"


def await_cpu(mesh: Mesh, tree: Any) -> Any:
    """Waits for `tree` where `must_await`; returns it."""
    return jax.block_until_ready(tree) if must_await(mesh) else tree
