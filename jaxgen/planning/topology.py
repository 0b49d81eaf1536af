"""Names machines that need not be here: `v5e:2x4`, `v5p:4x4x4`, `v6e:16x16`, `cpu:8`, `gpu:2`.

A TPU's name is its generation and the shape of the slice in chips; `v5e:16x16*2` is two such slices. Its compiler,
which comes with the extra `tpu`, describes the devices and compiles for them on any Linux machine. `cpu:N` is this
machine's processor as N virtual devices, `gpu:N` are GPUs that are here: XLA compiles for no absent ones.
"""

from __future__ import annotations

import importlib.util
import math
import os
import re
from typing import Any

import jax

from jaxgen.errors import UserError, first_line
from jaxgen.sizes import whole

_FORM = re.compile(r"^(v5e|v5p|v6e|cpu|gpu):(\d+(?:x\d+)*)(?:\*(\d+))?$")
MOST, MOST_HERE = 1_000_000, 1_024  # devices of a topology, and of one of this machine, where each takes a thread


def use_topology(name: str) -> None:
    """Prepares JAX for `devices(name)`, before its backends start. Planning for TPUs runs on this machine's CPU.

    Raises:
      UserError: where the name means no machine.
    """
    kind, shape, _ = _parts(name)
    if kind == "gpu":
        return
    jax.config.update("jax_platforms", "cpu")
    # the compiler alone: it need not ask the cloud what machine this is, nor have it to itself
    for variable, value in (
        ("TPU_SKIP_MDS_QUERY", "1"),
        ("TPU_ACCELERATOR_TYPE", "v5litepod-8"),
        ("TPU_WORKER_HOSTNAMES", "localhost"),
        ("ALLOW_MULTIPLE_LIBTPU_LOAD", "true"),
    ):
        os.environ.setdefault(variable, value)
    if kind == "cpu" and "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
        jax.config.update("jax_num_cpu_devices", shape[0])


def runs_here(name: str) -> bool:
    """Returns whether a program for a topology can be loaded by this machine, and so read back from a cache.

    Raises:
      UserError: where the name means no machine.
    """
    return _parts(name)[0] in ("cpu", "gpu")


def devices(name: str) -> list[jax.Device]:
    """Returns the devices of a topology. Programs can be compiled for them, but run only on those that exist here.

    Raises:
      UserError: for a name without a meaning, a TPU without its compiler, or devices that must be here and are not.
    """
    kind, shape, slices = _parts(name)
    if kind in ("cpu", "gpu"):
        return _here(kind, shape[0], name)
    if importlib.util.find_spec("libtpu") is None:
        raise UserError(f"--topology={name} needs the TPU's compiler; install it with pip install -e '.[tpu]'.")
    from jax.experimental import topologies

    chips = "x".join(map(str, shape))
    options: dict[str, Any] = {"num_slices": slices} if slices > 1 else {}
    if shape[0] * (shape[1] if len(shape) > 1 else 1) == 1:  # smaller than the host that the compiler assumes
        options["chips_per_host_bounds"] = (1, 1, 1)
    try:
        found = topologies.get_topology_desc(platform="tpu", topology_name=f"{kind}:{chips}", **options)
    except Exception as error:  # the compiler's own kinds, for shapes that are not built
        raise UserError(f"--topology={name}: the TPU's compiler knows no such slice ({first_line(error)}).") from error
    return list(found.devices)


def _here(kind: str, number: int, name: str) -> list[jax.Device]:
    try:
        found = jax.devices(kind)
    except RuntimeError:
        found = []
    if len(found) >= number:
        return found[:number]
    if kind == "gpu":
        raise UserError(
            f"--topology={name}: XLA compiles for GPUs that are here, and there are {len(found)}; plan on a machine "
            f"with {number}, or for a TPU, such as --topology=v5e:2x4."
        )
    raise UserError(
        f"--topology={name}: this process has {len(found)} CPU devices; take XLA_FLAGS' device count out of the "
        "environment, or raise it."
    )


def _parts(name: str) -> tuple[str, tuple[int, ...], int]:
    found = _FORM.match(name)
    shape = tuple(whole(n) or 0 for n in found[2].split("x")) if found else ()
    flat = found is not None and found[1] in ("cpu", "gpu")
    if not found or min(shape) < 1 or (flat and (len(shape) > 1 or found[3])) or not whole(found[3] or "1"):
        raise UserError(
            f"--topology={name!r} is no machine; write v5e:2x4 (also v5p, v6e; v5e:16x16*2 is two slices), cpu:8 "
            "or gpu:2."
        )
    slices = whole(found[3] or "1") or 1
    if math.prod(shape) * slices > MOST or (flat and shape[0] > MOST_HERE):
        raise UserError(f"--topology={name} has more devices than {MOST_HERE if flat else MOST:,}; give fewer.")
    return found[1], shape, slices
