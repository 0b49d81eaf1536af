"""Estimates how long a step takes at best: the roofline of Williams et al. (2009), with the network as a third roof.

A program needs its arithmetic at the chip's peak, its memory traffic at the memory's bandwidth, and its collectives at
the links' bandwidth. Where all three overlap perfectly, a step takes the longest of them; where nothing does, their
sum. Real steps take longer than the first, and an estimate that begins from public peaks is not a measurement.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence

import jax

from jaxgen.planning.hlo import Collective


@dataclasses.dataclass(frozen=True)
class Chip:
    """Holds one device's public numbers."""

    name: str  # as its maker calls it
    flops: float  # peak FLOP/s in bfloat16, dense
    memory: float  # bytes
    bandwidth: float  # of that memory, bytes/s
    link: float  # bytes/s that the device can send to its neighbours, all links together
    dims: int  # dimensions of the torus; 1 where a switch joins all devices
    source: str  # where the numbers stand


_CLOUD = "Google Cloud documentation, 'TPU {}'"
_NVIDIA = "NVIDIA, '{} Tensor Core GPU' data sheet"

# By the start of the device kind that JAX reports, the longer name first. Link bandwidth is half of what the makers
# call bidirectional.
CHIPS = {
    "TPU v6 lite": Chip("TPU v6e", 918e12, 32 * 2**30, 1638e9, 400e9, 2, _CLOUD.format("v6e")),
    "TPU v5 lite": Chip("TPU v5e", 197e12, 16 * 2**30, 819e9, 200e9, 2, _CLOUD.format("v5e")),
    "TPU v5p": Chip("TPU v5p", 459e12, 95 * 2**30, 2765e9, 600e9, 3, _CLOUD.format("v5p")),
    "TPU v5": Chip("TPU v5p", 459e12, 95 * 2**30, 2765e9, 600e9, 3, _CLOUD.format("v5p")),
    "NVIDIA H200": Chip("NVIDIA H200", 989e12, 141e9, 4800e9, 450e9, 1, _NVIDIA.format("H200")),
    "NVIDIA H100": Chip("NVIDIA H100 SXM", 989e12, 80e9, 3350e9, 450e9, 1, _NVIDIA.format("H100")),
    "NVIDIA A100": Chip("NVIDIA A100 80GB SXM", 312e12, 80e9, 2039e9, 300e9, 1, _NVIDIA.format("A100")),
}


def chip(device: jax.Device) -> Chip | None:
    """Returns the public numbers of a JAX device; None for one that the table lacks, such as a CPU."""
    kind = str(device.device_kind)
    return next((c for name, c in CHIPS.items() if kind.startswith(name)), None)


def memory_of(device: jax.Device, count: int) -> float:
    """Returns the bytes that a program may use on a device; `count` virtual CPU devices share the machine's memory.

    A TPU's compiler keeps some memory for itself. How much is known only when it refuses a program, by its own count.
    """
    known = chip(device)
    if known is not None:
        return known.memory
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / count


@dataclasses.dataclass(frozen=True)
class Estimate:
    """Holds the seconds that arithmetic, memory traffic and collectives each take in one run on one device."""

    compute: float
    memory: float
    network: float

    @property
    def least(self) -> float:
        """Returns the seconds of a run where the three overlap perfectly."""
        return max(self.compute, self.memory, self.network)

    @property
    def most(self) -> float:
        """Returns the seconds of a run where nothing overlaps."""
        return self.compute + self.memory + self.network

    @property
    def bound(self) -> str:
        """Returns which of the three takes longest."""
        return max(("compute", "memory", "network"), key=lambda name: getattr(self, name))


def estimate(flops: float, traffic: float, collectives: Sequence[Collective], known: Chip) -> Estimate:
    """Returns the roofline of a program that does so many FLOPs and moves so many bytes of memory on each device.

    A collective is taken to use the links of one dimension of the torus, both ways.
    """
    link = known.link / known.dims
    return Estimate(flops / known.flops, traffic / known.bandwidth, sum(c.moved for c in collectives) / link)


def assumptions(known: Chip) -> list[str]:
    """Returns the sentences that belong beside an estimate."""
    return [
        f"{known.name}: {known.flops / 1e12:g} TFLOP/s (bfloat16; matrix products of float32 arrays run at it too, by "
        f"JAX's default precision on a TPU), {known.memory / 1e9:.3g} GB at {known.bandwidth / 1e9:g} GB/s, links of "
        f"{known.link / 1e9:g} GB/s each way ({known.source}).",
        f"Collectives by ring algorithms over the links of one of {known.dims} dimensions, "
        f"{known.link / known.dims / 1e9:g} GB/s; latency, contention and the network between slices are left out.",
        "Memory traffic is the compiler's count; what stays on the chip between two operations may be in it.",
        "A step takes at least the longest of compute, memory and network, at most their sum if every peak is reached; "
        "reading data, logs and checkpoints are left out.",
    ]
