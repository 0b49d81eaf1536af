"""The answers that a quiz page saves: read back and checked.

A file holds `format`, `quiz` (title, details of the run, seed, digest, limit_ms), `answers`, one object a pair in the
order shown, and a `summary`, which is computed again and never believed. An answer is `a`, `b` (each a digest of the
pixels), `chosen` and `real` ("a" or "b") and `ms`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from etils import epath

from jaxgen.errors import UserError
from jaxgen.files import read_json
from jaxgen.metrics.analysis.human import Answers

FORMAT = "jaxgen quiz answers 1"


def read_answers(path: epath.PathLike) -> Answers:
    """One person's answers from the file that a quiz page saved.

    Raises:
      UserError: there is no such file, it is not a quiz's answers, or an entry is damaged; names the file.
    """
    path = epath.Path(path)
    if not path.is_file():
        raise UserError(f"There is no file {path}: give the answers that a quiz page saved.")
    found = read_json(path)
    if found.get("format") != FORMAT:
        raise UserError(f"{path} holds no answers of a quiz ('format' is not {FORMAT!r}): give a file that one saved.")
    quiz, entries = found.get("quiz"), found.get("answers")
    if not isinstance(quiz, dict) or not isinstance(entries, list) or not entries:
        raise UserError(f"{path}: 'quiz' must be an object and 'answers' a list of at least one; save them again.")
    details, limit = quiz.get("details", {}), quiz.get("limit_ms", 0)
    if not isinstance(details, dict) or not _is_time(limit):
        raise UserError(f"{path}: 'details' must be an object and 'limit_ms' a time; save them again.")
    for number, entry in enumerate(entries, 1):
        problem = _problem(entry)
        if problem:
            raise UserError(f"{path}, answer {number}: {problem}; save them again.")
    return Answers(
        fooled=np.asarray([entry["chosen"] != entry["real"] for entry in entries]),
        milliseconds=np.asarray([entry["ms"] for entry in entries], np.float64),
        quiz=str(quiz.get("digest", "")),
        details=details,
        limit_ms=limit,
        name=str(path),
    )


def _problem(entry: Any) -> str | None:
    if not isinstance(entry, Mapping):
        return "expected an object"
    for key in ("chosen", "real"):
        if entry.get(key) not in ("a", "b"):
            return f"{key!r} must be 'a' or 'b', found {entry.get(key)!r}"
    if not _is_time(entry.get("ms")):
        return f"'ms' must be a time in milliseconds, found {entry.get('ms')!r}"
    return None


def _is_time(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value) and value >= 0
