"""The one error that users meet: a sentence that names the thing and the mend, and what helps to write it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Raised for bad input. Its message is one sentence; `main.py` prints it and exits with 2."""


def first_line(error: BaseException) -> str:
    """Another library's error by its kind and the first line that it says, to stand within a sentence."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__


def nearest(name: str, known: Iterable[str]) -> str:
    """Text to append to "unknown <name>": the nearest known name, or all of them when few."""
    known = sorted(known)
    close = difflib.get_close_matches(str(name), known, n=1, cutoff=0.5)
    if close:
        return f"did you mean {close[0]!r}?"
    if not known:
        return "there are none."
    return "known are: " + ", ".join(known) + "."
