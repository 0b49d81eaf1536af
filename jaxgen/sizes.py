"""Compares what is asked for with the memory of this machine, before anything is allocated."""

from __future__ import annotations

import contextlib
import os
import pathlib

from jaxgen.errors import UserError

LIMIT = "/sys/fs/cgroup/memory.max"  # of a container on Linux: a number of bytes, or "max"
LARGEST = 2**63 - 1  # the largest whole number that arrays are counted with

PER_STEP = 64  # bytes of a step of a schedule or a sampler, in the arrays of their coefficients


def whole(text: str) -> int | None:
    """Returns the number in [0, LARGEST] that a text of the digits 0 to 9 spells; None for any other text.

    `str.isdigit` alone is also true of "²" and of digits of other scripts.
    """
    digits = text.isascii() and text.isdigit() and len(text) <= len(str(LARGEST))
    return int(text) if digits and int(text) <= LARGEST else None


def memory_bytes() -> int:
    """Returns the bytes of memory that this process may use at most."""
    whole = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with contextlib.suppress(OSError, ValueError):  # there is no such file, or no limit
        whole = min(whole, int(pathlib.Path(LIMIT).read_text()))
    return whole


def check_fits(needed: int, what: str, advice: str, available: int | None = None) -> None:
    """Raises a UserError if more bytes are needed than there are.

    Args:
      needed: how many bytes.
      what: what needs them, such as "config.train.batch_size=64 images of 8x8x1", for the message.
      advice: what to do, such as "lower config.train.batch_size".
      available: how many there are; by default the memory of this machine.
    """
    available = memory_bytes() if available is None else available
    if needed > available:
        raise UserError(f"{what} would take {spoken(needed)} of memory, and there are {spoken(available)}: {advice}.")


def spoken(count: int) -> str:
    """Returns a number of bytes in words, such as "1.2 TB"."""
    size, units = float(count), ["bytes", "kB", "MB", "GB", "TB", "PB"]
    while size >= 1000 and len(units) > 1:
        size /= 1000
        units.pop(0)
    return f"{size:.3g} {units[0]}" if size < 1000 else f"{size:.1e} {units[0]}"
