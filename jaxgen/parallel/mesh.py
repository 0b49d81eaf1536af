"""Makes the named mesh, and places batches on it.

One device, many devices and many hosts are the same code.

Axes: `data` and `fsdp` split the batch, `fsdp` also splits the state, `tensor` splits layers. Where arrays of the state
are placed is the matter of `jaxgen.parallel.sharding`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxgen.arrays import Tree
from jaxgen.errors import UserError

AXES = ("data", "fsdp", "tensor")
BATCH_AXES = ("data", "fsdp")  # what a batch is split over


def make_mesh(
    data: int, batch_size: int, fsdp: int = 1, tensor: int = 1, devices: Sequence[jax.Device] | None = None
) -> Mesh:
    """Returns a mesh with the axes `data`, `fsdp` and `tensor`.

    Args:
      data: devices on that axis; 0 takes as many as the other two leave and as divide the batch.
      batch_size: images per micro-batch, over all devices.
      fsdp: devices on that axis.
      tensor: devices on that axis.
      devices: the devices to use; by default those of this machine.

    Raises:
      UserError: where the numbers do not divide the batch, there are too few devices, or a process gets none.
    """
    here = devices is None
    devices = list(jax.devices() if devices is None else devices)
    inner = fsdp * tensor
    sizes = f"config.mesh.data={data}"
    if inner > 1:
        sizes += f", fsdp={fsdp}, tensor={tensor}"
    if min(fsdp, tensor) < 1 or data < 0 or max(data, 1) * inner > len(devices):
        raise UserError(f"{sizes}, but there are {len(devices)} devices; use at most that many.")
    if batch_size % (max(data, 1) * fsdp):
        raise UserError(
            f"{sizes} does not divide a (micro-)batch of {batch_size} images; change config.train.batch_size or "
            "config.evaluate.batch_size, or leave config.mesh.data=0 and fsdp=1 to have it chosen."
        )
    if data == 0:
        data = math.gcd(batch_size // fsdp, len(devices) // inner)
    used = _ordered(devices, (data, fsdp, tensor))
    if here and jax.process_count() > 1:
        _check_processes(used, devices, sizes)
    return Mesh(used, AXES)


def _ordered(devices: list[jax.Device], shape: tuple[int, int, int]) -> np.ndarray:
    """Orders devices so that neighbours on the inner axes are so on the machine too; `data` joins slices of TPUs."""
    size = math.prod(shape)
    slices = len({getattr(device, "slice_index", 0) or 0 for device in devices})
    if devices[0].platform != "tpu" or size != len(devices):
        return np.asarray(devices[:size]).reshape(shape)
    if slices > 1 and shape[0] % slices == 0:
        inside = (shape[0] // slices, *shape[1:])
        return mesh_utils.create_hybrid_device_mesh(inside, (slices, 1, 1), devices, allow_split_physical_axes=True)
    return mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)


def _check_processes(used: np.ndarray, devices: list[jax.Device], sizes: str) -> None:
    """Checks that each process holds rows of the batch that no other holds, and that all take part."""
    everyone = {device.process_index for device in devices}
    owners = [{device.process_index for device in row} for row in used.reshape(-1, used.shape[-1])]
    if any(len(owner) > 1 for owner in owners):
        raise UserError(f"{sizes}: config.mesh.tensor must divide the devices of one process.")
    counts = [sum(owner == {process} for owner in owners) for process in everyone]
    if min(counts) == 0 or min(counts) != max(counts):
        raise UserError(
            f"{sizes}: {used.size} of {len(devices)} devices leave a process without its share of the batch; choose a "
            "config.train.batch_size and config.evaluate.batch_size that the number of devices divides."
        )


def data_shards(mesh: Mesh) -> int:
    """Returns the number of parts that a batch is split into."""
    return mesh.shape["data"] * mesh.shape["fsdp"]


def replicated(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of arrays that every device holds completely, such as metrics and counters."""
    return NamedSharding(mesh, PartitionSpec())


def over_data(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of batches and keys, whose leading axis is split over `data` and `fsdp`."""
    return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def place(batch: Mapping[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """Places this process's rows of a batch on its devices; returns arrays that span the mesh."""
    sharding = over_data(mesh)
    return {k: jax.make_array_from_process_local_data(sharding, v) for k, v in batch.items()}


def place_full_batch(batch: Mapping[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """Places a batch of which every process holds all rows; returns arrays that span the mesh."""
    sharding = over_data(mesh)
    if jax.process_count() == 1:
        return place(batch, mesh)
    return {k: jax.make_array_from_callback(v.shape, sharding, v.__getitem__) for k, v in batch.items()}


def must_await(mesh: Mesh) -> bool:
    """Returns whether each program must end before the next one is dispatched.

    On a CPU with more than one device, several sharded programs that run at once can deadlock. Waiting costs nothing
    there.
    """
    return mesh.size > 1 and mesh.devices.flat[0].platform == "cpu"


def await_cpu(mesh: Mesh, tree: Tree) -> Tree:
    """Returns `tree`, after waiting for its arrays if `must_await(mesh)`."""
    return jax.block_until_ready(tree) if must_await(mesh) else tree
