"""Writes a run's report, a single HTML file that opens anywhere, from the files in the work folder.

`run.json` (command, versions, hardware, events), `config.json`, `metrics.jsonl` (curves), `metrics.json` (scores),
`plan.json` (the memory and time that a machine would need), `profile.json` (what takes the time) and `samples/`
(pictures) each fill their sections; if one is missing, its sections are left out. The page loads nothing: pictures are
embedded, the styles and the small script are inline, and a policy in its head forbids everything else.
"""

from __future__ import annotations

import datetime
import functools
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any

from etils import epath

from jaxgen.errors import UserError
from jaxgen.files import as_type_of, inside, read_json, read_metrics, write_bytes
from jaxgen.metrics.score import display_name
from jaxgen.report import sections
from jaxgen.report.numbers import duration, number, share, short
from jaxgen.report.pictures import figures_section, panels_section, samples_section
from jaxgen.report.plan import plan_section
from jaxgen.report.profile import profile_section
from jaxgen.report.style import CSS, SCRIPT
from jaxgen.report.tables import RunRecord

PARTS = ("run.json", "config.json", "metrics.jsonl", "metrics.json", "samples", "plan.json", "profile.json")
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
TITLES = {
    "samples": "Samples",
    "panels": "Panels",
    "numbers": "Numbers",
    "best": "The best checkpoint",
    "seen": "What the numbers saw",
    "profiles": "Profiles",
    "curves": "Learning curves",
    "plan": "Plan",
    "timing": "Where the time goes",
    "reproduce": "To reproduce",
    "events": "Events",
    "config": "Configuration",
}


def write_report(workdir: epath.PathLike) -> epath.Path:
    """Writes `workdir/report.html` atomically from the files in `workdir`, and returns its path.

    Raises:
      UserError: there is no such folder, or it holds none of a run's files. Or one of them is damaged; the message
        names the file and, where known, the line. The report is written first then, and says so in its place.
    """
    workdir = epath.Path(workdir)
    if not workdir.is_dir():
        raise UserError(f"There is no folder {workdir}: give the workdir of a run.")
    if not any((workdir / part).exists() for part in PARTS):
        raise UserError(f"{workdir} holds no run (none of {', '.join(PARTS)}): give the workdir of a run.")
    target = workdir / "report.html"
    damage: list[str] = []
    write_bytes(target, _page(workdir, damage).encode())
    damage = list(dict.fromkeys(damage))
    if damage:
        more = f", as are {len(damage) - 1} more of its parts" if len(damage) > 1 else ""
        raise UserError(f"{damage[0].rstrip('.')}; this is said in its place in {target}{more}.")
    return target


def _page(workdir: epath.Path, damage: list[str]) -> str:
    """Returns the page, and appends to `damage` what is wrong with files that cannot be shown."""

    def tried(read: Callable[[], Any], instead: Any) -> Any:
        try:
            return read()
        except UserError as error:
            damage.append(str(error))
            return instead

    run, config, numbers = (
        tried(functools.partial(_read, workdir, name), {}) for name in ("run.json", "config.json", "metrics.json")
    )
    rows = tried(lambda: _rows(workdir), [])
    total = _inner(config, "train", "total_images")
    total = total if isinstance(total, (int, float)) and 0 < total < 2**53 else None
    scored = tried(lambda: sections.scored(workdir / "metrics.json", numbers), {})
    filled = {}
    for key, make in _sections(workdir, run, config, numbers, rows, total).items():
        before = len(damage)
        filled[key] = tried(make, "")
        if len(damage) > before:
            said = f'<p class="help">{escape(damage[-1])}</p>'
            filled[key] = f'<section id="{key}"><h2>{TITLES[key]}</h2>{said}</section>'
    name = workdir.name or str(workdir)
    title = str(run.get("method") or _inner(config, "method", "name") or name)
    return PAGE.format(
        policy=POLICY,
        head=f"{escape(title)} · {escape(name)}",
        style=CSS,
        name=escape(name),
        title=escape(title),
        summary=f'<p class="summary">{escape(str(run["summary"]))}</p>' if run.get("summary") else "",
        facts=_facts(rows, total, scored, _inner(numbers, "_meta", "headline")),
        notice=_notice(rows) + "".join(f'<p class="notice">{escape(text)}</p>' for text in dict.fromkeys(damage)),
        links="".join(f'<a href="#{key}">{TITLES[key]}</a>' for key, text in filled.items() if text),
        sections="".join(filled.values()),
        made=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        script=SCRIPT,
    )


def _read(workdir: epath.Path, name: str) -> dict[str, Any]:
    """Returns the object in a JSON file of the run, or an empty one if there is no such file."""
    path = inside(workdir, name)
    return read_json(path) if path.exists() else {}


def _rows(workdir: epath.Path) -> list[dict[str, float | None]]:
    history = inside(workdir, "metrics.jsonl")
    return read_metrics(history) if history.exists() else []


def _record(workdir: epath.Path, run: Mapping) -> Mapping[str, Any]:
    """Returns the content of `run.json`; raises a UserError where an entry has another type."""
    as_type_of(run, str(workdir / "run.json"), RunRecord)
    return run


def _sections(
    workdir: epath.Path, run: Mapping, config: Mapping, numbers: Mapping, rows: Sequence[Mapping], total: float | None
) -> dict[str, Callable[[], str]]:
    """Returns what makes the sections, in the page's order; the result is "" for one whose files are missing."""
    samples, best = workdir / "samples", "metrics_best.json"
    return {
        "samples": lambda: samples_section(samples, total),
        "panels": lambda: panels_section(samples),
        "numbers": lambda: sections.numbers_section(workdir / "metrics.json", numbers),
        "best": lambda: sections.numbers_section(workdir / best, _read(workdir, best), "best"),
        "seen": lambda: figures_section(samples),
        "profiles": lambda: sections.profiles_section(workdir / "metrics.json", numbers),
        "curves": lambda: sections.curves_section(rows),
        "plan": lambda: plan_section(workdir / "plan.json", _read(workdir, "plan.json")),
        "timing": lambda: profile_section(workdir / "profile.json", _read(workdir, "profile.json")),
        "reproduce": lambda: sections.reproduce_section(_record(workdir, run)),
        "events": lambda: sections.events_section(_record(workdir, run).get("events") or []),
        "config": lambda: sections.config_section(config) if config else "",
    }


# `str.format` fills these texts; each name in braces is a field. The quiz's page begins with HEAD too.
HEAD = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{policy}">
"""
PAGE = (
    HEAD
    + """<title>{head} · jaxgen</title>
<style>{style}</style>
</head>
<body>
<header>
<p class="kicker">jaxgen: the report of one training run, in the folder {name}</p>
<h1>{title}</h1>
{summary}
{facts}
{notice}
<nav aria-label="Sections">{links}</nav>
</header>
<main>
{sections}
</main>
<footer><p class="help">This page was made {made} from the files beside it. To make it again, run
<code>python -m jaxgen.report WORKDIR</code></p></footer>
<script>{script}</script>
</body>
</html>
"""
)


def _facts(rows: Sequence[Mapping], total: float | None, scored: Mapping[str, Mapping], headline: object) -> str:
    """Shows the few numbers that readers look for first: the main score, the images seen and the time taken."""
    facts = []
    if scored:
        name = headline if isinstance(headline, str) and headline in scored else next(iter(scored))
        entry = scored[name]
        about = [sections.ARROWS.get(str(entry.get("better")), "")]
        about += [f"n = {entry['n']:,}"] if isinstance(entry.get("n"), int) else []
        about += [f"{word} {number(entry[key], 4)}" for key, word in (("floor", "real"), ("noise", "noise"))
                  if entry.get(key) is not None]  # fmt: skip
        named = display_name(name, entry.get("n"), entry.get("published"))
        facts.append(("fact main", number(entry["value"], 4), named, "; ".join(filter(None, about))))
    if rows:
        last = rows[-1]
        part = f"{share(last['images'], total)} of {short(total)} asked for" if total else ""
        facts.append(("fact", f"{last['images']:,}", "training images seen", part))
        rate = f"{last['images'] / last['seconds']:,.0f} images a second" if last["seconds"] > 0 else ""
        steps = f"{last['step']:,} steps"
        facts.append(("fact", duration(last["seconds"]), "of training", "; ".join(filter(None, [steps, rate]))))
    cards = "".join(
        f'<div class="{css}"><b>{escape(value)}</b><span>{escape(what)}</span>'
        + (f"<small>{escape(about)}</small></div>" if about else "</div>")
        for css, value, what, about in facts
    )
    nothing = "Nothing has been logged yet: config.train.log_every_images says when the first line comes."
    return f'<div class="facts">{cards}</div>' if cards else f'<p class="help">{nothing}</p>'


def _notice(rows: Sequence[Mapping]) -> str:
    """Returns a warning if any logged value was not finite; else ""."""
    lost = sorted({key for row in rows for key, value in row.items() if value is None})
    if not lost:
        return ""
    count = sum(any(value is None for value in row.values()) for row in rows)
    steps = "1 logged step" if count == 1 else f"{count} logged steps"
    return (
        f'<p class="notice">Values that were not finite (NaN or infinity) were met at {steps}, in '
        f"{escape(', '.join(lost))}.</p>"
    )


def _inner(value: object, *keys: str) -> Any:
    """Returns the entry at a path of keys in nested mappings, or None where there is none."""
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value
