"""Makes the tables of the sections of a plan and of a profile, and checks the files that they come from."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from html import escape
from typing import Annotated, Any, Required, TypedDict

import msgspec
from etils import epath

from jaxgen.errors import UserError
from jaxgen.files import as_type_of


@dataclasses.dataclass(frozen=True)
class Table:
    """Holds a table of text.

    Attributes:
      title: the text above the table.
      rows: rows of cells, all of one length.
      heads: the headings of the columns; if there are none, the first cell of each row is its heading.
    """

    title: str
    rows: Sequence[Sequence[str]]
    heads: Sequence[str] = ()


Number = Annotated[float, msgspec.Meta(ge=-1e100, le=1e100)]
Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]


class RunRecord(TypedDict, total=False):
    """The entries of `run.json` that a report reads (`jaxgen.runs.record`)."""

    events: list[dict[str, Any]] | None
    parameters: dict[str, Count]


class Entry(TypedDict, total=False):
    """One number of `metrics.json`; `jaxgen.metrics.score` says what each entry means."""

    value: Required[Number | None]
    n: Count | None
    reference: str | None
    better: str | None
    note: str | None
    network: str | None
    digest: str | None
    resize: str | None
    published: bool | None
    floor: Number | None
    noise: Number | None
    excess: Number | None
    std: Number | None


class PlannedProgram(TypedDict):
    """One program of `plan.json` (`jaxgen.planning.programs.Program`)."""

    name: str
    images: Count
    memory: dict[str, Number | None]
    work: Number
    flops: Number | None
    traffic: Number | None
    collectives: dict[str, dict[str, Number]]
    estimate: dict[str, Number | str] | None


class Suggestion(TypedDict):
    """A change of the config that a plan proposes."""

    overrides: dict[str, Any]
    fits: bool
    total: Number | None


class Plan(TypedDict):
    """The content of `plan.json` (`jaxgen.planning.plan`)."""

    topology: str
    device: str
    mesh: dict[str, Count]
    batch_size: Count
    parameters: Count
    state: dict[str, Number]
    programs: list[PlannedProgram]
    suggestions: list[Suggestion]
    batches: dict[str, bool]
    assumptions: list[str]
    fits: bool


class Operation(TypedDict):
    """One operation of a profiled program."""

    name: str
    kind: str
    layer: str
    backward: bool
    calls: Number
    seconds: Annotated[float, msgspec.Meta(ge=0, le=1e100)]


class ProfiledProgram(TypedDict):
    """One program of `profile.json`."""

    name: str
    images: Count
    runs: Count
    seconds: Annotated[float, msgspec.Meta(gt=0, le=1e100)]
    work: Number
    operations: list[Operation]


class Profile(TypedDict):
    """The content of `profile.json` (`jaxgen.planning.profile`)."""

    device: str
    mesh: dict[str, Count]
    data: str
    programs: list[ProfiledProgram]
    notes: list[str]


def check_numbers(path: epath.PathLike, entries: Mapping[str, Any]) -> None:
    """Raises a UserError unless the content of a `metrics.json` is numbers, each with its entries."""
    as_type_of({k: v for k, v in entries.items() if not k.startswith("_")}, str(path), dict[str, Entry])
    for name in entries:
        curve, at, x = name.partition("@")
        if at and not re.fullmatch(r"-?\d+(\.\d+)?", x):
            raise UserError(f"{path}: the name {name!r} must end in a number after '@'; correct it.")


def read_as(what: str, path: epath.PathLike, value: Mapping[str, Any], schema: Any) -> None:
    """Checks the content of a file that a mode wrote.

    Args:
      what: "plan" or "profile", which is both the mode and what it writes.
      path: the file, for the message.
      value: the content of the file.
      schema: the type that it must have.

    Raises:
      UserError: an entry is missing, has another type or is out of its range.
    """
    try:
        as_type_of(value, str(path), schema)
    except UserError as error:
        raise UserError(f"{error} It is not a {what} as --mode={what} writes it; write it again.") from error


def cards(tables: Sequence[Table]) -> str:
    """Returns each table as a card of the page, in HTML."""
    return "".join(f'<div class="card"><h3>{escape(table.title)}</h3>{_table(table)}</div>' for table in tables)


def notes(sentences: Sequence[str]) -> str:
    """Returns sentences as lines of help, in HTML."""
    return "".join(f'<p class="help">{escape(sentence)}</p>' for sentence in sentences)


def _table(table: Table) -> str:
    heads = "".join(f'<th scope="col">{escape(head)}</th>' for head in table.heads)
    head = f"<thead><tr>{heads}</tr></thead>" if table.heads else ""
    return f"<table>{head}<tbody>{''.join(_row(row, bool(table.heads)) for row in table.rows)}</tbody></table>"


def _row(row: Sequence[str], headed: bool) -> str:
    first = f"<td>{escape(row[0])}</td>" if headed else f'<th scope="row">{escape(row[0])}</th>'
    return f"<tr>{first}{''.join(f'<td>{escape(cell)}</td>' for cell in row[1:])}</tr>"
