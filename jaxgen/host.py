"""What every command does to the machine before JAX starts: a device per core, and a cache of compiled programs."""

from __future__ import annotations

import os
import pathlib

import jax


def use_cpu_cores() -> None:
    """One virtual CPU device per core, so that a CPU run uses them all; call before JAX starts its backends.

    Devices that sum over all of them wait for each other, each on a thread of a pool that XLA makes as large as NPROC
    says, the number of cores by default; with twice as many a core whose device waits helps the others (DCGAN's step,
    with a sum for each BatchNorm: 0.77 of the time).

    An XLA_FLAGS with a device count of its own, or JAX_NUM_CPU_DEVICES, wins. Accelerators are not affected.
    """
    if "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", ""):
        return
    if "JAX_NUM_CPU_DEVICES" in os.environ:
        return
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    jax.config.update("jax_num_cpu_devices", cores)
    os.environ.setdefault("NPROC", str(2 * cores))


def use_compilation_cache() -> None:
    """Caches compiled programs in the user's cache folder, or where JAX_COMPILATION_CACHE_DIR says."""
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        home = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
        jax.config.update("jax_compilation_cache_dir", os.fspath(pathlib.Path(home) / "jaxgen" / "xla"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)
