"""The one error that users meet: a sentence that names the thing and the mend."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Raised for bad input. Its message is one sentence; `main.py` prints it and exits with 2."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Text to append to "unknown <name>": the nearest known name, or all of them when few."""
    known = sorted(known)
    close = difflib.get_close_matches(str(name), known, n=1, cutoff=0.5)
    if close:
        return f"did you mean {close[0]!r}?"
    if not known:
        return "there are none."
    return "known are: " + ", ".join(known) + "."
