"""A profile (`profile.json`, see `jaxgen.planning.profile`) as text for a terminal and as a section of the report."""

from __future__ import annotations

import collections
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from jaxgen.errors import UserError
from jaxgen.report.numbers import number, share
from jaxgen.report.plan import seconds

HEADS = ("share", "time", "calls", "operation", "layer")
SHOWN = 15  # operations, and layers, of each program
Table = tuple[str, Sequence[str], list[tuple[str, ...]]]


def profile_text(profile: Mapping[str, Any]) -> str:
    """A profile as lines: what ran, and for each program its dearest operations and layers."""
    lines = [_headline(profile)]
    for title, heads, rows in _tables(profile):
        widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
        lines += ["", title]
        for row in (heads, *rows):
            cells = (c.rjust(w) if i < len(heads) - (2 if len(heads) > 4 else 1) else c.ljust(w)
                     for i, (c, w) in enumerate(zip(row, widths, strict=True)))  # fmt: skip
            lines.append("  " + "  ".join(cells).rstrip())
    return "\n".join([*lines, *([""] if profile["notes"] else []), *profile["notes"]])


def profile_section(path: Any, profile: Mapping[str, Any]) -> str:
    """The section of `profile.json`, or "" for an empty one. `path` is for messages only.

    Raises:
      UserError: where an entry of a profile is missing.
    """
    if not profile:
        return ""
    try:
        tables, headline, notes = _tables(profile), _headline(profile), profile["notes"]
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is not a profile ({error!r}); write it again with --mode=profile.") from error
    cards = "".join(
        f'<div class="card"><h3>{escape(title)}</h3><table><thead><tr>'
        + "".join(f'<th scope="col">{escape(head)}</th>' for head in heads)
        + "</tr></thead><tbody>"
        + "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
        + "</tbody></table></div>"
        for title, heads, rows in tables
    )
    said = "".join(f'<p class="help">{escape(note)}</p>' for note in notes)
    head = f'<h2>Where the time goes</h2><p class="help">{escape(headline)}</p>'
    return f'<section id="timing">{head}{cards}{said}</section>'


def _headline(profile: Mapping[str, Any]) -> str:
    mesh = ", ".join(f"{axis} {count}" for axis, count in profile["mesh"].items())
    return f"{profile['device']} ({mesh}), data: {profile['data']}. Times are of one run on one device."


def _tables(profile: Mapping[str, Any]) -> list[Table]:
    tables: list[Table] = []
    for program in profile["programs"]:
        every = program["operations"]
        total = sum(each["seconds"] for each in every)
        rate = program["work"] * program["images"] / program["seconds"]
        title = f"{program['name'].capitalize()}: {program['images']} images in {seconds(program['seconds'])}"
        title += f" (median of {program['runs']}, {number(rate / 1e9)} GFLOP/s over all devices)"
        if not every:
            tables.append((f"{title}; the trace names no operation", HEADS, []))
            continue
        rows = [
            (share(each["seconds"], total), seconds(each["seconds"]), number(each["calls"]), each["kind"], _layer(each))
            for each in every[:SHOWN]
        ]
        tables.append((f"{title}; {seconds(total)} in {len(every)} operations, the dearest", HEADS, rows))
        layers: dict[str, float] = collections.defaultdict(float)
        for each in every:
            layers[each["layer"] or "(of no layer)"] += each["seconds"]
        dearest = sorted(layers.items(), key=lambda item: -item[1])[:SHOWN]
        sums = [(share(spent, total), seconds(spent), name) for name, spent in dearest]
        tables.append((f"{program['name'].capitalize()}: the dearest layers", ("share", "time", "layer"), sums))
    return tables


def _layer(operation: Mapping[str, Any]) -> str:
    name = operation["layer"] or operation["name"]
    return f"{name}, backward" if operation["backward"] else name
