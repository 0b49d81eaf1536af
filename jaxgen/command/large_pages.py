"""Large memory pages for arrays on a CPU.

XLA takes its work space from the system at every step and gives it back: 264 MB, 67,000 pages of 4 KiB, in a small
U-Net's update, each of them faulted in and filled with zeros. With pages of 2 MiB, where Linux leaves the choice to
programs ("madvise"), the update takes nine tenths of the time. glibc asks for them when a tunable in the environment of
a fresh process says so, so that the process has to begin again.

Only `python main.py` and `python -m jaxgen` do so, and only as the program that is run: importing them, as a notebook
does, changes nothing. JAXGEN_LARGE_PAGES=0 switches it off, for a debugger or a profiler, which would lose the process.
"""

from __future__ import annotations

import os
import pathlib
import platform
import sys

SWITCH = pathlib.Path("/sys/kernel/mm/transparent_hugepage/enabled")
TUNABLE = "glibc.malloc.hugetlb"
SINCE = (2, 35)  # glibc's version that knows the tunable


def environment() -> dict[str, str]:
    """What a process is to be started with; nothing where large pages are not to be asked for, or asked for already."""
    if os.environ.get("JAXGEN_LARGE_PAGES", "1") == "0":
        return {}
    given = os.environ.get("GLIBC_TUNABLES", "")
    name, version = platform.libc_ver()
    known = name == "glibc" and tuple(int(part) for part in version.split(".")[:2]) >= SINCE
    if TUNABLE in given or not known or not SWITCH.exists() or "[madvise]" not in SWITCH.read_text():
        return {}
    return {"GLIBC_TUNABLES": ":".join(filter(None, (given, f"{TUNABLE}=1")))}


def restart_with_large_pages() -> None:
    """Begins this process again, same command and same number, where `environment` has something for it; else returns.

    To be called first of all, before anything is worth keeping.
    """
    more = environment()
    if more:
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, **more})
