"""Puts arrays on a CPU into large memory pages.

XLA takes its work space from the system at every step and gives it back. In a small U-Net's update these are 264 MB, or
67,000 pages of 4 KiB, and the system must fill each with zeros. With pages of 2 MiB the update takes nine tenths of the
time. Where Linux leaves the choice of the size to programs ("madvise"), glibc asks for large pages if a tunable in the
environment says so when the process starts. The process therefore has to restart with that tunable.

Only `python main.py` and `python -m jaxgen` restart, and only as the program that is run: importing them, as a notebook
does, changes nothing. JAXGEN_LARGE_PAGES=0 switches it off for debuggers and profilers, which would lose the process.
"""

from __future__ import annotations

import os
import pathlib
import platform
import sys

SWITCH = pathlib.Path("/sys/kernel/mm/transparent_hugepage/enabled")
TUNABLE = "glibc.malloc.hugetlb"
SINCE = (2, 35)  # the first version of glibc that has the tunable


def environment() -> dict[str, str]:
    """Returns the environment variables that ask for large pages.

    The dict is empty if large pages are switched off, not available, or already asked for.
    """
    if os.environ.get("JAXGEN_LARGE_PAGES", "1") == "0":
        return {}
    given = os.environ.get("GLIBC_TUNABLES", "")
    name, version = platform.libc_ver()
    known = name == "glibc" and tuple(int(part) for part in version.split(".")[:2]) >= SINCE
    if TUNABLE in given or not known or not SWITCH.exists() or "[madvise]" not in SWITCH.read_text():
        return {}
    return {"GLIBC_TUNABLES": ":".join(filter(None, (given, f"{TUNABLE}=1")))}


def restart_with_large_pages() -> None:
    """Restarts this process, with the same command and process id, if `environment` has something to add; else returns.

    It must be called before all other work, which a restart would lose.
    """
    more = environment()
    if more:
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, **more})
