"""Sets up what every command needs before JAX starts: a CPU device for each core, and a cache of compiled programs."""

from __future__ import annotations

import os
import pathlib
import re
import signal

import jax

# Without it XLA may begin several sums over devices at a time, in another order on each of them. Each then waits for a
# device that waits for it, and the process is aborted after a minute: the step of a CLIP on 8 devices always is. With 1
# or 2 devices this was never seen, and a step is some percent faster without it.
IN_ORDER = "--xla_cpu_enable_concurrency_optimized_scheduler=false"
COUNT = "xla_force_host_platform_device_count"


def use_cpu_cores() -> None:
    """Makes one virtual CPU device for each core, so that a run on a CPU uses all cores; call it before JAX starts.

    In a sum over all devices each device waits for the others on a thread of XLA's pool. The pool has NPROC threads,
    by default one for each core. With twice as many, a core whose device waits helps the others: the step of a DCGAN,
    with a sum for each BatchNorm, takes 0.77 of the time.

    A device count in XLA_FLAGS, or JAX_NUM_CPU_DEVICES, takes precedence. Accelerators are not affected. More than two
    devices run the operations of a program in one order (`IN_ORDER`), unless XLA_FLAGS says otherwise.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    asked = re.search(rf"{COUNT}=(\d+)", flags)
    count = asked[1] if asked else os.environ.get("JAX_NUM_CPU_DEVICES", str(cores))
    if count.isdecimal() and int(count) > 2 and IN_ORDER.partition("=")[0] not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} {IN_ORDER}".strip()
    if COUNT in flags or "JAX_NUM_CPU_DEVICES" in os.environ:
        return
    jax.config.update("jax_num_cpu_devices", cores)
    os.environ.setdefault("NPROC", str(2 * cores))


def stop_signals() -> tuple[signal.Signals, ...]:
    """Returns the signals that ask a run to save and end: SIGTERM, and SIGHUP, which a closed terminal sends.

    SIGHUP is left alone where it is ignored, as under `nohup`, and on systems that have none.
    """
    found = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    return tuple(each for each in found if each == signal.SIGTERM or signal.getsignal(each) is not signal.SIG_IGN)


def use_compilation_cache() -> None:
    """Caches compiled programs in the user's cache folder, or in the folder that JAX_COMPILATION_CACHE_DIR names."""
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        home = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
        jax.config.update("jax_compilation_cache_dir", os.fspath(pathlib.Path(home) / "jaxgen" / "xla"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)
