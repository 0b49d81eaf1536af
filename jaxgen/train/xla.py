"""The persistent compilation cache: a program compiled once is not compiled again by a later run."""

from __future__ import annotations

import os
import pathlib

import jax


def use_compilation_cache() -> None:
    """Caches compiled programs in the user's cache folder, or where JAX_COMPILATION_CACHE_DIR says."""
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        home = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
        jax.config.update("jax_compilation_cache_dir", os.fspath(pathlib.Path(home) / "jaxgen" / "xla"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)
