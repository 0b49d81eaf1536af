"""Makes the tables of the sections of a plan and of a profile, and checks the files that they come from."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any, TypeVar

from etils import epath

from jaxgen.errors import UserError

T = TypeVar("T")


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


def read_as(what: str, path: epath.PathLike, value: Mapping[str, Any], make: Callable[[Mapping[str, Any]], T]) -> T:
    """Returns `make(value)` for the content of a file that a mode wrote.

    Args:
      what: "plan" or "profile", which is both the mode and what it writes.
      path: the file, for the message.
      value: the content of the file.
      make: the function that turns the content into something to show.

    Raises:
      UserError: an entry is missing or has another type.
    """
    try:
        return make(value)
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is not a {what} ({error!r}); write it again with --mode={what}.") from error


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
