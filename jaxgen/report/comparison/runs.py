"""Reads what a comparison shows of the folders of runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from etils import epath

from jaxgen.errors import UserError
from jaxgen.files import as_type_of, inside, read_json, read_metrics
from jaxgen.report.sections import scored
from jaxgen.report.tables import RunRecord

MOST = 8  # runs in one page: as many colours as can be told apart
NEEDED = ("config.json", "metrics.jsonl", "metrics.json")  # a run has one of these at least


@dataclasses.dataclass(frozen=True)
class Run:
    """Holds what is known of one run.

    Attributes:
      name: what it is called in the page: the end of its folder's path that no other run has.
      workdir: its folder.
      record: the content of `run.json`.
      config: the content of `config.json`.
      numbers: the entries of `metrics.json` that are numbers, `{name: entry}`.
      rows: the lines of `metrics.jsonl`.
    """

    name: str
    workdir: epath.Path
    record: Mapping[str, Any]
    config: Mapping[str, Any]
    numbers: Mapping[str, Mapping[str, Any]]
    rows: Sequence[Mapping[str, float | None]]


def read_runs(workdirs: Sequence[epath.PathLike]) -> list[Run]:
    """Reads the runs in folders.

    Raises:
      UserError: there are fewer than two folders or more than `MOST`, one holds no run, or a file is damaged.
    """
    if not 2 <= len(workdirs) <= MOST:
        raise UserError(f"a comparison is of two to {MOST} runs, and {len(workdirs)} are given: name their folders.")
    paths = [epath.Path(workdir) for workdir in workdirs]
    for path in paths:
        if not any((path / name).exists() for name in NEEDED):
            raise UserError(f"{path} holds no run (none of {', '.join(NEEDED)}): give the workdirs of runs.")
    return [_read(path, name) for path, name in zip(paths, names(paths), strict=True)]


def names(paths: Sequence[epath.Path]) -> list[str]:
    """Returns a name for each folder: as many of its last parts as tell folders apart, or a number where none do."""
    most = max(len(path.parts) for path in paths)
    for count in range(1, most + 1):
        found = ["/".join(path.parts[-count:]) or str(path) for path in paths]
        if len(set(found)) == len(found):
            return found
    return [f"{path.name} ({number})" for number, path in enumerate(paths, 1)]


def _read(path: epath.Path, name: str) -> Run:
    def content(file: str) -> dict[str, Any]:
        found = inside(path, file)
        return read_json(found) if found.exists() else {}

    record, history = content("run.json"), inside(path, "metrics.jsonl")
    as_type_of(record, str(path / "run.json"), RunRecord)
    numbers = scored(path / "metrics.json", content("metrics.json"))
    return Run(name, path, record, content("config.json"), numbers, read_metrics(history) if history.exists() else [])


def differing_keys(configs: Sequence[Mapping[str, Any]]) -> tuple[dict[str, list[Any]], int]:
    """Returns the keys whose values differ, `{key: [value of each config]}`, and how many keys are equal.

    A key that a config lacks has the value `MISSING` there.
    """
    flat = [dict(_leaves(config)) for config in configs]
    keys = sorted({key for one in flat for key in one})
    values = {key: [one.get(key, MISSING) for one in flat] for key in keys}
    differ = {key: found for key, found in values.items() if any(value != found[0] for value in found)}
    return differ, len(keys) - len(differ)


class _Missing:
    """Stands for the value of a key that a config lacks."""


MISSING = _Missing()


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from _leaves(inner, f"{path}.{key}" if path else str(key))
    elif path:
        yield path, value
