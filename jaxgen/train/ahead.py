"""Compiles the first step on a thread of its own, and lets a run that is stopped end without waiting for it."""

from __future__ import annotations

import logging
import math
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait

import jax

log = logging.getLogger("jaxgen")
PATIENCE = 5.0  # seconds of compiling after which a line says so
LOOK = 0.1  # seconds between two looks whether the run was stopped
_THREAD = "compile-ahead"


def compile_ahead(lowered: Sequence[jax.stages.Lowered]) -> Future:
    """Starts to compile programs on another thread; later calls of the jitted functions find them."""
    pool = ThreadPoolExecutor(1, thread_name_prefix=_THREAD)
    future = pool.submit(lambda: [each.compile() for each in lowered])
    pool.shutdown(wait=False)
    return future


def await_unless(future: Future, stopped: Callable[[], bool]) -> bool:
    """Waits until the programs are compiled, or until `stopped` returns true; returns whether they are compiled.

    A line says so where it takes longer than `PATIENCE`.
    """
    told = time.monotonic() + PATIENCE
    while not stopped():
        if wait([future], LOOK).done:
            return True
        if time.monotonic() > told:
            told = math.inf
            log.info("compiling the update; this takes minutes on few cores, and the next time it is read from a cache")
    return False


def leave(status: int) -> None:
    """Ends the process at once with this status if a program is still being compiled; else returns.

    Python would wait for the thread, which cannot be interrupted, though nobody needs the program any more. It is
    called when everything is saved, closed and given back.
    """
    if any(thread.name.startswith(_THREAD) for thread in threading.enumerate()):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
