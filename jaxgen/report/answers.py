"""Reads and checks the answers that a quiz page saves.

A file holds `format`, `quiz` (title, details of the run, seed, digest, limit_ms), `answers` and `summary`. `answers`
has one object for each pair in the order shown. An object has `a` and `b` (each a digest of the pixels), `chosen` and
`real` (each "a" or "b") and `ms`. The summary is not trusted: it is computed again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from etils import epath

from jaxgen.errors import UserError
from jaxgen.files import read_json
from jaxgen.metrics.analysis.human import Answers

FORMAT = "jaxgen quiz answers 1"


def read_answers(path: epath.PathLike) -> Answers:
    """Reads one person's answers from the file that a quiz page saved.

    Raises:
      UserError: the file does not exist, holds no answers of a quiz, or has a damaged entry; the message names it.
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


def _problem(entry: object) -> str | None:
    if not isinstance(entry, Mapping):
        return "expected an object"
    for key in ("chosen", "real"):
        if entry.get(key) not in ("a", "b"):
            return f"{key!r} must be 'a' or 'b', found {entry.get(key)!r}"
    if not _is_time(entry.get("ms")):
        return f"'ms' must be a time in milliseconds, found {entry.get('ms')!r}"
    return None


def _is_time(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value) and value >= 0
