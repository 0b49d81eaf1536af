"""Reads and checks the answers that a quiz page saves.

A file holds `format`, `quiz` (title, details of the run, seed, digest, limit_ms), `answers` and `summary`. `answers`
has one object for each pair in the order shown. An object has `a` and `b` (each a digest of the pixels), `chosen` and
`real` (each "a" or "b") and `ms`. The summary is not trusted: it is computed again.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypedDict

import msgspec
import numpy as np
from etils import epath

from jaxgen.errors import UserError
from jaxgen.files import as_type_of, read_json
from jaxgen.metrics.analysis.human import Answers

FORMAT = "jaxgen quiz answers 1"
Time = Annotated[float, msgspec.Meta(ge=0, le=1e15)]  # milliseconds


class Answer(TypedDict):
    """One choice: which side was chosen, which was real, and how long it took."""

    chosen: Literal["a", "b"]
    real: Literal["a", "b"]
    ms: Time


class Quiz(TypedDict, total=False):
    """What the page was made of."""

    details: dict[str, Any]
    limit_ms: Time


class SavedAnswers(TypedDict):
    """The part of a saved file that is read."""

    quiz: Quiz
    answers: Annotated[list[Answer], msgspec.Meta(min_length=1)]


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
    as_type_of(found, str(path), SavedAnswers)
    quiz, entries = found["quiz"], found["answers"]
    details, limit = quiz.get("details", {}), quiz.get("limit_ms", 0)
    return Answers(
        fooled=np.asarray([entry["chosen"] != entry["real"] for entry in entries]),
        milliseconds=np.asarray([entry["ms"] for entry in entries], np.float64),
        quiz=str(quiz.get("digest", "")),
        details=details,
        limit_ms=limit,
        name=str(path),
    )
