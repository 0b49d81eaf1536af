"""Sets up what every command needs before JAX starts: a CPU device for each core, and a cache of compiled programs."""

from __future__ import annotations

import os
import pathlib

import jax


def use_cpu_cores() -> None:
    """Makes one virtual CPU device for each core, so that a run on a CPU uses all cores; call it before JAX starts.

    In a sum over all devices each device waits for the others on a thread of XLA's pool. The pool has NPROC threads,
    by default one for each core. With twice as many, a core whose device waits helps the others: the step of a DCGAN,
    with a sum for each BatchNorm, takes 0.77 of the time.

    A device count in XLA_FLAGS, or JAX_NUM_CPU_DEVICES, takes precedence. Accelerators are not affected.
    """
    if "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", ""):
        return
    if "JAX_NUM_CPU_DEVICES" in os.environ:
        return
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    jax.config.update("jax_num_cpu_devices", cores)
    os.environ.setdefault("NPROC", str(2 * cores))


def use_compilation_cache() -> None:
    """Caches compiled programs in the user's cache folder, or in the folder that JAX_COMPILATION_CACHE_DIR names."""
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        home = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
        jax.config.update("jax_compilation_cache_dir", os.fspath(pathlib.Path(home) / "jaxgen" / "xla"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)
