"""Shows a profile (`profile.json`, see `jaxgen.planning.profile`) as text in a terminal and as a section of the report.

The slowest operations or layers are those that take the most time in all.
"""

from __future__ import annotations

import collections
from collections.abc import Mapping
from html import escape
from typing import Any

from etils import epath

from jaxgen.report.numbers import number, share
from jaxgen.report.plan import seconds, titled
from jaxgen.report.tables import Profile, Table, cards, notes, read_as

HEADS = ("share", "time", "calls", "operation", "layer")
SHOWN = 15  # how many operations, and how many layers, are shown of each program


def profile_text(profile: Mapping[str, Any]) -> str:
    """Returns a profile as lines: the device, and for each program its slowest operations and layers."""
    lines = [_headline(profile)]
    for table in _tables(profile):
        lines += ["", table.title, *_aligned(table)]
    return "\n".join([*lines, *([""] if profile["notes"] else []), *profile["notes"]])


def profile_section(path: epath.PathLike, profile: Mapping[str, Any]) -> str:
    """Returns the section of `profile.json`, or "" if it is empty. `path` is for messages only.

    Raises:
      UserError: an entry of the profile is missing.
    """
    if not profile:
        return ""
    read_as("profile", path, profile, Profile)
    tables, headline, said = _tables(profile), _headline(profile), profile["notes"]
    head = f'<h2>Where the time goes</h2><p class="help">{escape(headline)}</p>'
    return f'<section id="timing">{head}{cards(tables)}{notes(said)}</section>'


def _aligned(table: Table) -> list[str]:
    """Returns rows as lines. Numbers are aligned right; names (the last column, or two in the wide table) are left."""
    names = 2 if len(table.heads) > 4 else 1
    widths = [max(map(len, column)) for column in zip(table.heads, *table.rows, strict=True)]
    lines = []
    for row in (table.heads, *table.rows):
        columns = enumerate(zip(row, widths, strict=True))
        cells = [cell.rjust(w) if i < len(row) - names else cell.ljust(w) for i, (cell, w) in columns]
        lines.append("  " + "  ".join(cells).rstrip())
    return lines


def _headline(profile: Mapping[str, Any]) -> str:
    mesh = ", ".join(f"{axis} {count}" for axis, count in profile["mesh"].items())
    return f"{profile['device']} ({mesh}), data: {profile['data']}. Times are of one run on one device."


def _tables(profile: Mapping[str, Any]) -> list[Table]:
    tables: list[Table] = []
    for program in profile["programs"]:
        every = program["operations"]
        total = sum(each["seconds"] for each in every)
        rate = program["work"] * program["images"] / program["seconds"]
        title = f"{titled(program['name'])}: {program['images']} images in {seconds(program['seconds'])}"
        title += f" (median of {program['runs']}, {number(rate / 1e9)} GFLOP/s over all devices)"
        if not every:
            tables.append(Table(f"{title}; the trace names no operation", [], HEADS))
            continue
        rows = [
            (share(each["seconds"], total), seconds(each["seconds"]), number(each["calls"]), each["kind"], _layer(each))
            for each in every[:SHOWN]
        ]
        tables.append(Table(f"{title}; {seconds(total)} in {len(every)} operations, the slowest", rows, HEADS))
        layers: dict[str, float] = collections.defaultdict(float)
        for each in every:
            layers[each["layer"] or "(of no layer)"] += each["seconds"]
        slowest = sorted(layers.items(), key=lambda item: -item[1])[:SHOWN]
        sums = [(share(spent, total), seconds(spent), name) for name, spent in slowest]
        tables.append(Table(f"{titled(program['name'])}: the slowest layers", sums, ("share", "time", "layer")))
    return tables


def _layer(operation: Mapping[str, Any]) -> str:
    name = operation["layer"] or operation["name"]
    return f"{name}, backward" if operation["backward"] else name
