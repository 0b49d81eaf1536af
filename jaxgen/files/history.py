"""Reads `metrics.jsonl`, the history of a run.

The file has one JSON object on each line: `step` (int), `images` (training images seen so far), `seconds` (of training
so far), then numbers called `<turn>/<name>`. A number that was not finite is written as null.
"""

from __future__ import annotations

import json
from typing import Any

from etils import epath

from jaxgen.errors import UserError
from jaxgen.files.paths import regular_file
from jaxgen.files.reading import whole_number


def metric_lines(path: epath.PathLike) -> list[tuple[bytes, dict[str, Any]]]:
    """Reads every complete line of a `metrics.jsonl` as (its bytes without the newline, its content), in order.

    An incomplete last line, which a killed run leaves (no newline at its end, and not JSON), is left out.

    Raises:
      UserError: any other line is not what `metrics.jsonl` holds; the message names the file and the line.
    """
    lines = regular_file(path, "the history").read_bytes().split(b"\n")
    found = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line, parse_constant=lambda _: None, parse_int=whole_number)
        except RecursionError as error:
            raise UserError(f"{path}, line {number}: nested too deeply; correct or remove that line.") from error
        except ValueError as error:  # JSONDecodeError and UnicodeDecodeError are both ValueErrors
            if number == len(lines):  # what follows the last newline
                break
            raise UserError(f"{path}, line {number}: not valid JSON ({error}); correct or remove that line.") from error
        problem = _row_problem(row)
        if problem:
            raise UserError(f"{path}, line {number}: {problem}; correct or remove that line.")
        found.append((line, row))
    return found


def _row_problem(row: object) -> str | None:
    if not isinstance(row, dict):
        return "expected a JSON object"
    for key in ("step", "images", "seconds"):
        if not _is_number(row.get(key)):
            return f"{key!r} must be a number, found {row.get(key)!r}"
    for key, value in row.items():
        if key != "nonfinite" and value is not None and not _is_number(value):
            return f"{key!r} must be a number or null, found {value!r}"
    return None


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def read_metrics(path: epath.PathLike) -> list[dict[str, float | None]]:
    """Reads the history in a `metrics.jsonl` as one dict for each step, in the order of the steps.

    A step that occurs more than once (a run was stopped after its last checkpoint and resumed) keeps the
    last value of each number.

    Raises:
      UserError: as `metric_lines`.
    """
    steps: dict[float, dict[str, float | None]] = {}
    for _, row in metric_lines(path):
        row.pop("nonfinite", None)  # those are the nulls
        steps[row["step"]] = {**steps.get(row["step"], {}), **row}
    return [steps[step] for step in sorted(steps)]
