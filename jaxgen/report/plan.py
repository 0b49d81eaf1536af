"""Shows a plan (`plan.json`, see `jaxgen.planning.plan`) as text in a terminal and as a section of the report."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from etils import epath

from jaxgen.report.numbers import number, share
from jaxgen.report.tables import Plan, Table, cards, notes, read_as


def plan_text(plan: Mapping[str, Any]) -> str:
    """Returns a plan as lines: the machine, whether the run fits, each program's table, suggestions and assumptions."""
    tables = _tables(plan)
    width = max(len(name) for table in tables for name, _ in table.rows) + 2
    lines = [_verdict(plan)]
    for table in tables:
        lines += ["", table.title, *(f"  {name:<{width}}{text}" for name, text in table.rows)]
    lines += ["", "Assumptions", *(f"  {sentence}" for sentence in plan["assumptions"])]
    return "\n".join(lines)


def plan_section(path: epath.PathLike, plan: Mapping[str, Any]) -> str:
    """Returns the section of `plan.json`, or "" if it is empty. `path` is for messages only.

    Raises:
      UserError: an entry of the plan is missing.
    """
    if not plan:
        return ""
    read_as("plan", path, plan, Plan)
    tables, verdict, sentences = _tables(plan), _verdict(plan), plan["assumptions"]
    return (
        f'<section id="plan"><h2>Plan</h2><p class="help">{escape(verdict)} Programs were compiled but not run.</p>'
        f'<div class="pair">{cards(tables)}</div>{notes(sentences)}</section>'
    )


def size(count: float | None) -> str:
    """Returns bytes as 512 B, 3.2 kB, 1.05 MB, 15.8 GB, in powers of ten."""
    if count is None:
        return "unknown"
    for unit, scale in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if abs(count) >= scale:
            return f"{number(count / scale)} {unit}"
    return f"{count:.0f} B"


def seconds(value: float) -> str:
    """Returns a time as 1.2 s, 35 ms, 410 us."""
    for unit, scale in (("s", 1.0), ("ms", 1e-3)):
        if value >= scale:
            return f"{number(value / scale)} {unit}"
    return f"{number(value / 1e-6)} us"


def titled(name: str) -> str:
    """Returns a program's name with a capital letter at its start; the name of a turn in it stays as it is."""
    return name[:1].upper() + name[1:]


def _verdict(plan: Mapping[str, Any]) -> str:
    mesh = ", ".join(f"{axis} {count}" for axis, count in plan["mesh"].items())
    words = "fits" if plan["fits"] else "DOES NOT FIT"
    text = f"{plan['topology']} ({plan['device']}; {mesh}), {plan['batch_size']} images an update: {words}."
    if plan["fits"]:
        return text
    suggestions = plan["suggestions"]
    if suggestions and suggestions[-1]["fits"]:
        flags = " ".join(f"--config.{key}={value}" for key, value in suggestions[-1]["overrides"].items())
        return f"{text} It fits with {flags}"
    if suggestions:
        return f"{text} Nor does it fit with any of {len(suggestions)} changes that were compiled."
    return text


def _tables(plan: Mapping[str, Any]) -> list[Table]:
    tables = []
    learned = f"{plan['parameters']:,}"
    state = [("parameters that learn, in all", learned)]
    state += [(name, size(count)) for name, count in plan["state"].items() if count]
    tables.append(Table("State, on one device", state))
    for program in plan["programs"]:
        title = f"{titled(program['name'])}: {program['images']} images, on one device"
        tables.append(Table(title, _rows(program)))
    if plan["suggestions"]:
        rows = []
        for suggestion in plan["suggestions"]:
            flags = " ".join(f"{key}={value}" for key, value in suggestion["overrides"].items())
            rows.append((flags, f"{'fits' if suggestion['fits'] else 'does not fit'}, {size(suggestion['total'])}"))
        tables.append(Table("Changes that were compiled", rows))
    if plan["batches"]:
        rows = [(f"batch {batch}", "fits" if fits else "does not fit") for batch, fits in plan["batches"].items()]
        tables.append(Table("Batch sizes that were compiled", rows))
    return tables


def _rows(program: Mapping[str, Any]) -> list[tuple[str, str]]:
    memory = program["memory"]
    parts = [(name, size(count)) for name, count in memory.items() if count and name not in ("total", "limit")]
    total, limit = memory.get("total"), memory.get("limit")
    rows = [*parts, ("memory in all", f"{size(total)} of {size(limit)}" + (_part(total, limit)))]
    rows.append(("work of one image", f"{number(program['work'] / 1e9)} GFLOP"))
    if program["flops"] is None:
        return rows
    rows += [("FLOPs", f"{number(program['flops'] / 1e9)} G"), ("memory traffic", size(program["traffic"]))]
    for kind, entry in program["collectives"].items():
        count = f"{entry['count']:,.0f} of {size(entry['bytes'])} in all"
        rows.append((kind, f"{count}; a device sends {size(entry['moved'])}"))
    if not program["collectives"]:
        rows.append(("collectives", "none"))
    estimate = program["estimate"]
    if estimate:
        three = "; ".join(f"{name} {seconds(estimate[name])}" for name in ("compute", "memory", "network"))
        rows.append(("roofline", three))
        rate = [number(program["images"] / estimate[end]) for end in ("most", "least")]
        rows.append(
            ("time", f"{seconds(estimate['least'])} to {seconds(estimate['most'])}, bound by {estimate['bound']}")
        )
        rows.append(("images a second", f"{rate[0]} to {rate[1]}"))
    return rows


def _part(total: float | None, limit: float | None) -> str:
    return f" ({share(total, limit)})" if total is not None and limit else ""
