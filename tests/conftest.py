"""One CPU, eight virtual devices and a compilation cache for every test; set up before JAX starts."""

from __future__ import annotations

import ctypes
import gc
import logging
import os
import pathlib
import sys

import pytest

DEVICES = 8
LEVEL = "xla_backend_optimization_level"
LARGE = 4 * 2**30  # bytes of one worker

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # waiting threads would spin beside the other workers
for flag, value in (
    ("xla_force_host_platform_device_count", DEVICES),
    ("xla_cpu_enable_concurrency_optimized_scheduler", "false"),  # as `jaxgen.host` sets it
    # the suite compiles far longer than it computes: half the time of compiling, and programs of a part of the speed,
    # which is why `tiny.LONG` is for those that compute for seconds, and `pytest_configure` looks at what is run
    (LEVEL, 0),
    ("xla_cpu_use_fusion_emitters", "false"),
):
    if flag not in os.environ.get("XLA_FLAGS", ""):
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --{flag}={value}".strip()
_CACHES = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", os.fspath(pathlib.Path(_CACHES) / "jaxgen" / "tests"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")

for noisy in ("absl", "orbax", "etils"):
    logging.getLogger(noisy).setLevel(logging.ERROR)

# the package itself, so that an uninstalled checkout can be tested, and the methods that exist for the tests only,
# named in configs as `tiny_methods:<Name>`
_TESTS = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [os.fspath(_TESTS.parent), os.fspath(_TESTS)]


def pytest_configure(config: pytest.Config) -> None:
    """Compiles what is held against other implementations a little better; workers begin with these flags."""
    if config.getoption("markexpr").startswith("parity"):
        os.environ["XLA_FLAGS"] = os.environ["XLA_FLAGS"].replace(f"--{LEVEL}=0", f"--{LEVEL}=1")


@pytest.fixture(scope="session")
def devices() -> int:
    """How many virtual devices there are."""
    import jax

    return jax.device_count()


@pytest.fixture(autouse=True, scope="module")
def _small_enough():
    """Forgets compiled programs between modules where a worker has grown large; the cache on disk has them."""
    yield
    jax, memory = sys.modules.get("jax"), pathlib.Path("/proc/self/statm")  # which only Linux has
    resident = int(memory.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if memory.exists() else 0
    if jax is not None and resident > LARGE:
        jax.clear_caches()
        gc.collect()
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # of glibc, which keeps what is freed until it is told
        if trim is not None:
            trim(0)
