"""Writes the page that compares runs, a single HTML file that opens anywhere and loads nothing."""

from __future__ import annotations

import base64
import dataclasses
import datetime
import io
import json
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, TypeGuard

import numpy as np
from etils import epath
from PIL import Image

from jaxgen.files import write_bytes
from jaxgen.metrics.score import display_name
from jaxgen.report.comparison.curves import chart, metric_groups
from jaxgen.report.comparison.runs import MISSING, Run, differing_keys
from jaxgen.report.numbers import duration, number, share, short
from jaxgen.report.page import HEAD, POLICY
from jaxgen.report.sections import ARROWS, when
from jaxgen.report.style import CSS, SCRIPT

FILE = "comparison.html"
# Colours that people with any colour vision tell apart (Okabe and Ito 2008), for a light and for a dark page.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#a0487f", "#8a6d00", "#2b8fc4", "#555555", "#7a4b2a")
ON_DARK = ("#6db7e8", "#ff9d5c", "#4fd1a5", "#e39ac6", "#f0d24a", "#9fd4f2", "#b8b8b8", "#cfa07a")
DASHES = ("none", "none", "none", "none", "6 3", "6 3", "6 3", "6 3")
SCALE = {"floor": "real data", "noise": "noise"}  # what a number is seen beside
UNCOMMON = ("learning_rate", "images_per_second", "grad_norm", "gradient_norm", "skipped")  # folded at the end


@dataclasses.dataclass(frozen=True)
class Drawn:
    """Holds pictures of samples: a grid of one run, or of what runs were given, uint8 `[H, W, 3]`, or why there is
    none.
    """

    title: str
    picture: np.ndarray | None
    text: str = ""


def write_comparison(folder: epath.PathLike, runs: Sequence[Run], drawn: Sequence[Drawn], asked: str) -> epath.Path:
    """Writes `folder/comparison.html` atomically and returns its path.

    Args:
      runs: two or more runs.
      drawn: what is shown as samples, in order.
      asked: a sentence that says how the samples were drawn.
    """
    target = epath.Path(folder) / FILE
    write_bytes(target, page(runs, drawn, asked).encode())
    return target


def page(runs: Sequence[Run], drawn: Sequence[Drawn], asked: str) -> str:
    """Returns the page as HTML; the arguments are those of `write_comparison`."""
    filled = {
        "runs": ("The runs", _runs_section(runs)),
        "numbers": ("Numbers", _numbers_section(runs)),
        "samples": ("Samples", _samples_section(drawn, asked)),
        "curves": ("Learning curves", _curves_section(runs)),
        "config": ("What differs in the configs", _config_section(runs)),
        "reproduce": ("To reproduce", _commands_section(runs)),
    }
    sections = {key: (title, text) for key, (title, text) in filled.items() if text}
    methods = sorted({str(run.record.get("method") or "") for run in runs} - {""})
    return PAGE.format(
        policy=POLICY,
        style=CSS + _css(),
        title=escape(" and ".join([", ".join(run.name for run in runs[:-1]), runs[-1].name])),
        summary=escape(f"Methods: {', '.join(methods)}." if len(methods) > 1 else f"Method: {''.join(methods)}."),
        links="".join(f'<a href="#{key}">{title}</a>' for key, (title, _) in sections.items()),
        sections="".join(
            f'<section id="{key}"><h2>{title}</h2>{text}</section>' for key, (title, text) in sections.items()
        ),
        made=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        script=SCRIPT,
    )


def _css() -> str:
    """Returns the style of the lines and of what names them."""
    light = " ".join(f"--run{i}: {colour};" for i, colour in enumerate(COLOURS))
    dark = " ".join(f"--run{i}: {colour};" for i, colour in enumerate(ON_DARK))
    lines = "".join(
        f".line{i} {{ stroke: var(--run{i}); stroke-dasharray: {dash}; }} .dot{i}, .key{i} {{ fill: var(--run{i}); "
        f"background: var(--run{i}); }}\n"
        for i, dash in enumerate(DASHES)
    )
    return f":root {{ {light} }}\n@media (prefers-color-scheme: dark) {{ :root {{ {dark} }} }}\n{lines}{MORE_CSS}"


def _name(runs: Sequence[Run], i: int) -> str:
    return f'<span class="run"><span class="key key{i}"></span>{escape(runs[i].name)}</span>'


def _table(first: str, runs: Sequence[Run], rows: Sequence[tuple[str, Sequence[str]]], more: Sequence[str] = ()) -> str:
    """Returns a table with a column for each run. Heads and cells of `rows` are HTML; `more` names further columns."""
    heads = "".join(f'<th scope="col">{_name(runs, i)}</th>' for i in range(len(runs)))
    heads += "".join(f'<th scope="col">{escape(text)}</th>' for text in more)
    labels = [*(escape(run.name) for run in runs), *map(escape, more)]
    body = "".join(
        f'<tr><th scope="row">{head}</th>'
        + "".join(f'<td data-label="{label}">{cell}</td>' for label, cell in zip(labels, cells, strict=True))
        + "</tr>"
        for head, cells in rows
    )
    return (
        f'<div class="wide"><table class="stack"><thead><tr><th scope="col">{first}</th>{heads}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _runs_section(runs: Sequence[Run]) -> str:
    def inner(run: Run, *keys: str) -> Any:
        found: Any = run.record
        for key in keys:
            found = found.get(key) if isinstance(found, Mapping) else None
        return found

    rows = [
        ("method", [escape(str(inner(run, "method") or "")) for run in runs]),
        ("about", [f"<small>{escape(str(inner(run, 'summary') or ''))}</small>" for run in runs]),
        ("training images seen", [_seen(run) for run in runs]),
        ("time of training", [duration(run.rows[-1]["seconds"] or 0) if run.rows else "" for run in runs]),
        ("parameters", [_parameters(inner(run, "parameters")) for run in runs]),
        ("hardware", [_hardware(inner(run, "hardware")) for run in runs]),
        ("versions", [_versions(inner(run, "versions")) for run in runs]),
        ("begun", [escape(when(inner(run, "started"))) for run in runs]),
    ]
    return _table("", runs, [row for row in rows if any(row[1])])


def _seen(run: Run) -> str:
    if not run.rows:
        return ""
    images = run.rows[-1]["images"] or 0
    train = run.config.get("train")
    total = train.get("total_images") if isinstance(train, Mapping) else None
    of = f" <small>{share(images, total)} of {short(total)}</small>" if _positive(total) else ""
    return f"{images:,}{of}"


def _positive(value: Any) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and 0 < value < 2**53


def _parameters(found: Any) -> str:
    counts = found if isinstance(found, Mapping) else {}
    total = sum(count for count in counts.values() if isinstance(count, int))
    groups = ", ".join(f"{group} {short(float(f'{count:.3g}'))}" for group, count in counts.items())
    return f"{total:,} <small>{escape(groups)}</small>" if total else ""


def _hardware(found: Any) -> str:
    parts = [found.get("devices"), found.get("device"), found.get("cpu")] if isinstance(found, Mapping) else []
    return escape(" ".join(str(part) for part in parts if part))


def _versions(found: Any) -> str:
    names = ("jaxgen", "jax", "flax") if isinstance(found, Mapping) else ()
    return escape(", ".join(f"{name} {found[name]}" for name in names if name in found))


def _numbers_section(runs: Sequence[Run]) -> str:
    names = list(dict.fromkeys(name for run in runs for name in run.numbers))
    if not names:
        return ""
    rows = []
    for name in names:
        entries = [run.numbers.get(name) for run in runs]
        known = [entry for entry in entries if entry]
        alike = all(_measured(entry) == _measured(known[0]) for entry in known)
        best = _best(entries) if alike else None
        apart = [key for key in SCALE if len({entry.get(key) for entry in known}) > 1]
        cells = [_value(entry, entry is best, alike, apart) for entry in entries]
        first = known[0]
        about = [ARROWS.get(str(first.get("better")), ""), str(first.get("note") or "")]
        if not alike:
            about.append("These were not measured alike, so that they cannot be compared")
        head = escape(display_name(name, first.get("n"), first.get("published")))
        said = escape(". ".join(text.rstrip(".") for text in about if text))
        shared = ["" if key in apart else _shared(known, key) for key in (*SCALE, "n", "reference")]
        rows.append((f"{head}<br><small>{said}</small>", [*cells, *shared]))
    text = (
        "The best of each line is marked, where all were measured alike. To the right of the runs stands what real data"
        " and what noise score (below a value where this differs), and on how many samples (n) and against what a"
        " number was measured. After ± stands the standard deviation over pairs, subsets or splits. Two runs also"
        " differ by chance: only runs of several seeds tell how much."
    )
    more = (*(f"{what} scores" for what in SCALE.values()), "n", "reference")
    return f'<p class="help">{text}</p>{_table("number", runs, rows, more)}'


def _measured(entry: Mapping[str, Any]) -> tuple[Any, ...]:
    """Returns what two numbers must share to be comparable."""
    return tuple(entry.get(key) for key in ("n", "reference", "network", "digest", "resize", "better"))


def _best(entries: Sequence[Mapping[str, Any] | None]) -> Mapping[str, Any] | None:
    known = [entry for entry in entries if entry and entry.get("value") is not None]
    better = known[0].get("better") if len(known) > 1 else None
    if better not in ARROWS or len({entry["value"] for entry in known}) == 1:
        return None
    return (min if better == "lower" else max)(known, key=lambda entry: entry["value"])


def _value(entry: Mapping[str, Any] | None, best: bool, alike: bool, apart: Sequence[str]) -> str:
    """Returns a number of one run; `apart` has the keys of `SCALE` that are not the same for all runs."""
    if not entry:
        return ""
    said = number(entry["value"], 4)
    said = f'<b class="best">{said} ◂ best</b>' if best else said
    if entry.get("std") is not None:
        said += f" <small>± {number(entry['std'])}</small>"
    if entry.get("excess") is not None:
        said += f"<br><small>excess {number(entry['excess'])}</small>"
    beside = {SCALE[key]: entry[key] for key in apart if entry.get(key) is not None}
    said += "".join(f"<br><small>{what} {number(value)}</small>" for what, value in beside.items())
    if not alike:
        said += f"<br><small>{escape(', '.join(str(part) for part in _measured(entry)[:3] if part))}</small>"
    return said


def _shared(entries: Sequence[Mapping[str, Any]], key: str) -> str:
    """Returns what all entries have under a key, or each different one."""
    found = dict.fromkeys(entry.get(key) for entry in entries)
    texts = [number(value, 4) if isinstance(value, float) else str(value) for value in found if value is not None]
    return escape(" / ".join(texts))


def _samples_section(drawn: Sequence[Drawn], asked: str) -> str:
    figures = []
    for one in drawn:
        text = f"<br><small>{escape(one.text)}</small>" if one.text else ""
        image = (
            ""
            if one.picture is None
            else (f'<img src="{_png(one.picture)}" alt="{escape(f"Grid of samples: {one.title}")}">')
        )
        figures.append(
            f'<figure class="panel"><figcaption><b>{escape(one.title)}</b>{text}</figcaption>{image}</figure>'
        )
    return f'<p class="help">{escape(asked)}</p><div class="panels samples">{"".join(figures)}</div>' if figures else ""


def _png(picture: np.ndarray) -> str:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _curves_section(runs: Sequence[Run]) -> str:
    groups = metric_groups(runs)
    if not groups:
        return ""
    legend = "".join(
        f'<span><svg viewBox="0 0 28 8" aria-hidden="true"><path class="line line{i}" d="M0 4h28"/></svg>'
        f"{escape(run.name)}</span>"
        for i, run in enumerate(runs)
    )
    shown: list[str] = []
    folded: list[str] = []
    for group, keys in groups.items():
        common = [key for key in keys if key.rpartition("/")[2] not in UNCOMMON]
        for found, part in ((shown, common), (folded, [key for key in keys if key not in common])):
            charts = "".join(chart(key, runs, against) for key in part for against in ("images", "seconds"))
            found += [f'<h3>{escape(group)}</h3><div class="two">{charts}</div>'] if charts else []
    more = f"<details><summary>Learning rates, lengths of gradients, speed</summary>{''.join(folded)}</details>"
    text = (
        "Each line has two charts: to the left against the training images seen, to the right against the time of"
        " training, which is that of each run's own machine. Lines are running medians of what was logged. Point at a"
        " chart to read the values of all runs."
    )
    return f'<p class="help">{text}</p><p class="legend">{legend}</p>{"".join(shown)}{more if folded else ""}'


def _config_section(runs: Sequence[Run]) -> str:
    differ, equal = differing_keys([run.config for run in runs])
    if not any(run.config for run in runs):
        return ""
    said = f"{equal} keys are equal in all runs." + ("" if differ else " There is no difference.")
    rows = [(f"<code>{escape(key)}</code>", [_setting(value) for value in values]) for key, values in differ.items()]
    return f'<p class="help">{said}</p>' + (_table("key", runs, rows) if rows else "")


def _setting(value: Any) -> str:
    if value is MISSING:
        return "<small>not set</small>"
    text = value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)
    return f"<code>{escape(text)}</code>"


def _commands_section(runs: Sequence[Run]) -> str:
    return "".join(
        f'<h3>{_name(runs, i)}</h3><div class="card command"><pre>{escape(str(run.record["command"]))}</pre>'
        '<button type="button" hidden>Copy</button></div>'
        for i, run in enumerate(runs)
        if run.record.get("command")
    )


MORE_CSS = """
.run { display: inline-flex; align-items: baseline; overflow-wrap: anywhere; }
.key { display: inline-block; flex: none; width: .7rem; height: .7rem; border-radius: 50%; margin-right: .4rem; }
.line { stroke-width: 2; stroke-linejoin: round; }
.legend { position: sticky; top: 0; display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; max-width: none;
  padding: .5rem 0; background: var(--page); border-bottom: 1px solid var(--rule); z-index: 1; }
.legend span { display: inline-flex; align-items: center; gap: .4rem; }
.legend svg { width: 28px; height: 8px; }
.two { display: grid; grid-template-columns: repeat(2, minmax(0, 1fr)); gap: .75rem; }
.samples { grid-template-columns: repeat(auto-fill, minmax(min(15rem, 100%), 1fr)); }
.two .chart output { flex-basis: 100%; min-height: 1.5em; margin: 0; font-size: .875rem; color: var(--soft); }
.wide { overflow-x: auto; } .wide thead th:not(:first-child) { min-width: 6rem; }
.best { color: var(--accent); white-space: nowrap; }
code { font-family: ui-monospace, Consolas, monospace; font-size: .875rem; overflow-wrap: anywhere; }
details { margin-top: 1.5rem; } summary { cursor: pointer; }
@media (max-width: 44rem) { .two { grid-template-columns: 1fr; } }
.panel img { image-rendering: pixelated; width: 100%; }
"""

# `str.format` fills this text; each name in braces is a field.
PAGE = (
    HEAD
    + """<title>{title} · jaxgen</title>
<style>{style}</style>
</head>
<body>
<header>
<p class="kicker">jaxgen: a comparison of runs</p>
<h1>{title}</h1>
<p class="summary">{summary}</p>
<nav aria-label="Sections">{links}</nav>
</header>
<main>
{sections}
</main>
<footer><p class="help">This page was made {made} by <code>--mode=compare</code> from the runs' files.</p></footer>
<script>{script}</script>
</body>
</html>
"""
)
