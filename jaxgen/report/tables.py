"""What the sections of a plan and of a profile share: a file read into tables or refused, and tables as cards."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any

from jaxgen.errors import UserError


@dataclasses.dataclass(frozen=True)
class Table:
    """A title, rows of text of one length, and what stands above their columns.

    Without `heads`, the first cell of a row is its name.
    """

    title: str
    rows: Sequence[Sequence[str]]
    heads: Sequence[str] = ()


def read_as(
    what: str, path: Any, value: Mapping[str, Any], make: Callable[[Mapping[str, Any]], tuple]
) -> tuple:
    """`make(value)`, of the content of a file that a mode wrote.

    Args:
      what: "plan" or "profile", the mode and what it writes. path: of the file, for the sentence.

    Raises:
      UserError: where an entry is missing or of another type.
    """
    try:
        return make(value)
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is not a {what} ({error!r}); write it again with --mode={what}.") from error


def cards(tables: Sequence[Table]) -> str:
    """Each table as a card of the page."""
    return "".join(f'<div class="card"><h3>{escape(table.title)}</h3>{_table(table)}</div>' for table in tables)


def notes(sentences: Sequence[str]) -> str:
    """Sentences as lines of help."""
    return "".join(f'<p class="help">{escape(sentence)}</p>' for sentence in sentences)


def _table(table: Table) -> str:
    heads = "".join(f'<th scope="col">{escape(head)}</th>' for head in table.heads)
    head = f"<thead><tr>{heads}</tr></thead>" if table.heads else ""
    return f"<table>{head}<tbody>{''.join(_row(row, bool(table.heads)) for row in table.rows)}</tbody></table>"


def _row(row: Sequence[str], headed: bool) -> str:
    first = f"<td>{escape(row[0])}</td>" if headed else f'<th scope="row">{escape(row[0])}</th>'
    return f"<tr>{first}{''.join(f'<td>{escape(cell)}</td>' for cell in row[1:])}</tr>"
