"""Makes the other sections of a report: scores, learning curves, how to reproduce the run, events and config."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from etils import epath

from jaxgen.metrics.score import display_name
from jaxgen.report.charts import WINDOWS, line_chart
from jaxgen.report.numbers import number, short
from jaxgen.report.tables import check_numbers

EVENTS = 200  # how many of the most recent events are shown

# The meaning of the last word of a metric's name, for words that mean the same in every method.
KNOWN_CURVES = {
    "loss": "What this turn minimises.",
    "gradient_norm": "Length of the gradient before clipping.",
    "grad_norm": "Length of the gradient before clipping.",
    "learning_rate": "The learning rate of this group's newest update.",
    "skipped": "Updates rolled back because a value was not finite.",
    "images_per_second": "Training images a second.",
}
KNOWN_NUMBERS = {
    "fid": "Fréchet distance between the features of samples and of real images.",
    "frechet": "Fréchet distance between the features of samples and of real images.",
    "kid": "Kernel distance between the features of samples and of real images.",
    "inception_score": "How certain a classifier is of each sample's class, and how varied the classes are.",
    "precision": "Share of samples that lie near real images.",
    "recall": "Share of real images that lie near samples.",
    "density": "In how many real images' neighbourhoods a sample lies; may exceed 1.",
    "coverage": "Share of real images that have a sample in their neighbourhood.",
    "accuracy": "Share of images that a classifier assigns to the class asked for.",
    "lpips": "Perceptual distance between images.",
    "psnr": "Peak signal-to-noise ratio, in dB.",
    "negative_elbo": "Upper bound on -log p(x), in nats an image.",
    "negative_iwae": "Upper bound on -log p(x) by importance weights, in nats an image.",
    "squared_error": "Squared error of the reconstruction, summed over an image.",
    "squared_error_shuffled": "The same from another image's latents: it is as low only if the decoder ignores them.",
    "active_latents": "Number of latents whose posterior mean depends on the image.",
}
KNOWN_PROFILES = {
    "denoising_loss_by_time": "Squared error of epsilon at each time, from data at 0 to noise at 1: early times decide "
    "the fine detail, and late times the content of the picture.",
    "accuracy_by_time": "How well the class can be told from noisy images, from data at 0 to noise at 1.",
}
ARROWS = {"lower": "lower is better", "higher": "higher is better"}


def numbers_section(path: epath.PathLike, entries: Mapping[str, Any], of: str = "") -> str:
    """Shows `metrics.json` as a table; returns "" if it holds no number.

    Args:
      path: the file, for messages only.
      entries: the file's content.
      of: "best" for the scores of the best checkpoint, which have a section of their own; "" for those of the last.

    Raises:
      UserError: an entry is not an object with a `value`.
    """
    found = scored(path, entries)
    if not found:
        return ""
    rows = [_number_row(name, entry) for name, entry in found.items()]
    heads = ("number", "value", "n", "reference", "real data scores", "noise scores", "excess")
    head = "".join(f'<th scope="col">{label}</th>' for label in heads)
    title = "Numbers of the best checkpoint" if of else "Numbers"
    text = "Each number is shown with how many samples (n) it was measured on, and against what."
    if any(entry.get("excess") is not None for entry in found.values()):
        text += (
            " Excess is 0 where a number is what real images score with the same n, and 1 where it is what noise"
            " scores: the shorter the bar, the better."
        )
    meta = entries.get("_meta")
    more = (
        f'<h3>How they were measured</h3><div class="tree">{tree(meta)}</div>'
        if isinstance(meta, Mapping) and meta
        else ""
    )
    return (
        f'<section id="{of or "numbers"}"><h2>{title}</h2><p class="help">{text}</p>'
        f'<table class="stack numbers"><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table>'
        f"{more}</section>"
    )


def _number_row(name: str, entry: Mapping[str, Any]) -> str:
    """Returns the table's row of one number."""
    help_text = " ".join(filter(None, [_known_number(name), str(entry.get("note") or ""), _seen_by(entry)]))
    better = ARROWS.get(str(entry.get("better")), "")
    excess = entry.get("excess")
    bar = ""
    if excess is not None:
        width = 100 * min(max(excess, 0.0), 1.0)
        bar = f'{number(excess)}<span class="bar"><i style="width:{width:.1f}%"></i></span>'
    cells = {
        "value": f"<b>{number(entry['value'], 4)}</b> <small>{better}</small>",
        "n": f"{entry['n']:,}" if isinstance(entry.get("n"), int) else "",
        "reference": escape(str(entry.get("reference") or "")),
        "real data scores": _optional(entry.get("floor")),
        "noise scores": _optional(entry.get("noise")),
        "excess": bar,
    }
    columns = "".join(f'<td data-label="{label}">{cell}</td>' if cell else "<td></td>" for label, cell in cells.items())
    return (
        f'<tr><th scope="row">{escape(display_name(name, entry.get("n"), entry.get("published")))}<br>'
        f"<small>{escape(help_text)}</small></th>{columns}</tr>"
    )


def scored(path: epath.PathLike, entries: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Returns the entries of `metrics.json` that are numbers.

    These are all except names that begin with `_`, such as `_meta`, and points of curves, `<curve>@<x>`.

    Raises:
      UserError: an entry is not an object with a `value`, or one of its fields has another type.
    """
    check_numbers(path, entries)
    return {name: entry for name, entry in entries.items() if not name.startswith("_") and "@" not in name}


def curves_section(rows: Sequence[Mapping[str, float | None]]) -> str:
    """Draws one chart for each metric, grouped by the part of its name before the slash, and then the speed."""
    groups: dict[str, list[str]] = {}
    for row in rows:
        for key in row:
            if key not in ("step", "images", "seconds") and key not in groups.setdefault(_group(key), []):
                groups[_group(key)].append(key)
    parts = []
    for group in sorted(groups, key=lambda g: g == "run"):
        charts = []
        for key in groups[group]:
            x = [_checked(row, "images") for row in rows if key in row]
            y = [row[key] for row in rows if key in row]
            name = key.removeprefix(group + "/")
            charts.append(line_chart(name, x, y, _known(KNOWN_CURVES, key)))
        title = "Whole run" if group == "run" else escape(group)
        parts.append(f'<h3>{title}</h3><div class="charts">{"".join(charts)}</div>')
    times = [(_checked(row, "images"), _checked(row, "seconds")) for row in rows]
    pairs = zip(times, times[1:], strict=False)
    rate = [(b[0], (b[0] - a[0]) / (b[1] - a[1])) for a, b in pairs if b[1] > a[1] and b[0] > a[0]]
    if rate:
        note = "Training images a second between two logged lines; a dip is compiling, sampling or saving."
        chart = line_chart("images per second", [x for x, _ in rate], [y for _, y in rate], note)
        parts.append(f'<h3>Speed</h3><div class="charts">{chart}</div>')
    if not parts:
        return ""
    text = "The horizontal axis shows the training images seen. "
    if len(rows) >= 2 * WINDOWS:
        text += (
            f"The faint line shows the logged values, and the bold line their running median over a {WINDOWS}th of the"
            " history. "
        )
    text += (
        "The number beside a name is the latest value; point at a curve to read another. A heading is a turn (one"
        " kind of update, with its own loss), a group of parameters, or the name of the part that logged it."
    )
    return f'<section id="curves"><h2>Learning curves</h2><p class="help">{text}</p>{"".join(parts)}</section>'


def _checked(row: Mapping[str, float | None], key: str) -> float:
    """Returns a row's `images` or `seconds`, which `read_metrics` has checked to be a number."""
    value = row[key]
    assert value is not None
    return value


def profiles_section(path: epath.PathLike, entries: Mapping[str, Any]) -> str:
    """Draws one chart for each family of scores called `<curve>@<x>`; returns "" if there is none.

    The name of the curve says what x is: `loss_by_time@0.1` is drawn against `time`. `path` is for messages only.
    """
    check_numbers(path, entries)
    curves: dict[str, list[tuple[float, float | None]]] = {}
    for name, entry in entries.items():
        curve, at, x = name.partition("@")
        if at:
            curves.setdefault(curve, []).append((float(x), entry["value"]))
    if not curves:
        return ""
    charts = []
    for curve, points in curves.items():
        name, _, against = curve.partition("_by_")
        xs, ys = zip(*sorted(points), strict=True)
        charts.append(line_chart(name.replace("_", " "), xs, ys, _known(KNOWN_PROFILES, curve), against or "x"))
    return (
        '<section id="profiles"><h2>Profiles</h2><p class="help">Scores as curves.</p>'
        f'<div class="charts">{"".join(charts)}</div></section>'
    )


def config_section(config: Mapping[str, Any]) -> str:
    """Shows the resolved configuration as a tree that folds."""
    return (
        '<section id="config"><h2>Configuration</h2><p class="help">All settings of the run, '
        f'with defaults and overrides.</p><div class="card tree">{tree(config)}</div></section>'
    )


def tree(value: Mapping[str, Any]) -> str:
    """Shows nested mappings as folding lists: plain values first, then each mapping under its own title."""
    leaves = {k: v for k, v in value.items() if not _nested(v)}
    out = ""
    if leaves:
        pairs = "".join(f"<dt>{escape(str(k))}</dt><dd>{escape(_leaf(v))}</dd>" for k, v in leaves.items())
        out += f"<dl>{pairs}</dl>"
    for key, inner in value.items():
        if _nested(inner):
            inner = inner if isinstance(inner, Mapping) else dict(enumerate(inner))
            title = f"<summary>{escape(str(key))}</summary>"
            out += f'<details open>{title}<div class="leaves">{tree(inner)}</div></details>'
    return out


def reproduce_section(run: Mapping[str, Any]) -> str:
    """Shows the command line, the hardware, the versions, and how many parameters were learned."""
    parts = []
    if run.get("command"):
        parts.append(
            '<p class="help">The same command on the same versions and devices repeats this run; in the same '
            f'folder, it resumes it.</p><div class="card command"><pre>{escape(str(run["command"]))}</pre>'
            '<button type="button" hidden>Copy</button></div>'
        )
    tables = []
    parameters = run.get("parameters")
    if isinstance(parameters, Mapping) and parameters:
        counts = {k: f"{v:,} ({short(float(f'{v:.3g}'))})" if isinstance(v, int) else v for k, v in parameters.items()}
        tables.append(_pairs("Parameters", counts))
    for title in ("hardware", "versions"):
        if isinstance(run.get(title), Mapping) and run[title]:
            tables.append(_pairs(title.capitalize(), run[title]))
    known = ("command", "parameters", "hardware", "versions", "events", "method", "summary")
    others = {k: v for k, v in run.items() if k not in known and not _nested(v)}
    if others:
        tables.append(_pairs("Run", others))
    if tables:
        parts.append(f'<div class="pair">{"".join(tables)}</div>')
    nested = {k: v for k, v in run.items() if k not in known and _nested(v)}
    if nested:
        parts.append(f'<div class="tree">{tree(nested)}</div>')
    if not parts:
        return ""
    return f'<section id="reproduce"><h2>To reproduce</h2>{"".join(parts)}</section>'


def events_section(events: Sequence[Mapping[str, Any]]) -> str:
    """Shows the events of the run in order; returns "" if there are none."""
    rows = "".join(
        f'<tr><td data-label="time">{escape(when(event.get("time")))}</td>'
        f'<td data-label="event">{escape(str(event.get("event", "")))}</td>'
        f'<td data-label="detail">{escape(_leaf(event.get("detail", "")))}</td></tr>'
        for event in events[-EVENTS:]
    )
    if not rows:
        return ""
    more = f" These are the last {EVENTS} of {len(events)}." if len(events) > EVENTS else ""
    return (
        '<section id="events"><h2>Events</h2><p class="help">The events of the run, such as resumed runs, skipped '
        f'updates and changed settings, with the oldest first.{more}</p><table class="stack"><thead><tr>'
        '<th scope="col">time</th><th scope="col">event</th><th scope="col">detail</th></tr></thead>'
        f"<tbody>{rows}</tbody></table></section>"
    )


def when(time: object) -> str:
    """Returns an ISO time as `2026-03-01 12:30:05`, with its offset if it has one, and other text unchanged."""
    text = str(time or "")
    if len(text) < 19 or text[10] != "T":
        return text
    rest = text[19:].lstrip(".0123456789")
    return f"{text[:10]} {text[11:19]}" + (" UTC" if rest in ("Z", "+00:00") else f" {rest}" if rest else "")


def _pairs(title: str, values: Mapping[str, Any]) -> str:
    texts = {k: when(v) if isinstance(v, str) else _leaf(v) for k, v in values.items()}
    rows = "".join(
        f'<tr><th scope="row">{escape(str(k))}</th><td>{escape(text)}</td></tr>' for k, text in texts.items()
    )
    return f'<div class="card"><h3>{escape(title)}</h3><table><tbody>{rows}</tbody></table></div>'


def _nested(value: object) -> bool:
    """Returns whether a value is a branch of the tree: a mapping with content, or a list of these."""
    if isinstance(value, Mapping):
        return bool(value)
    return isinstance(value, list) and any(isinstance(v, Mapping) for v in value) and all(map(_nested, value))


def _leaf(value: object) -> str:
    return value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)


def _optional(value: float | None) -> str:
    return "" if value is None else number(value, 4)


def _group(key: str) -> str:
    return key.rpartition("/")[0] or "run"


def _known_number(name: str) -> str:
    """Returns the meaning of a number; that of `precision_digits` is that of `precision`."""
    known = [key for key in KNOWN_NUMBERS if name == key or name.startswith(f"{key}_")]
    return KNOWN_NUMBERS[max(known, key=len)] if known else ""


def _seen_by(entry: Mapping[str, Any]) -> str:
    """Returns the network and weights of a number, its standard deviation, and the count of real images behind it."""
    parts = []
    if entry.get("network"):
        resize = "" if entry.get("resize") in (None, "", "none") else f", images resized: {entry['resize']}"
        parts.append(f"Network {entry['network']}, weights {entry.get('digest')}{resize}.")
    if isinstance(entry.get("std"), (int, float)):
        parts.append(f"Standard deviation {number(entry['std'])}.")
    if entry.get("network") and isinstance(entry.get("floor_n"), int):
        parts.append(f"Real data: {entry['floor_n']:,} images.")
    return " ".join(parts)


def _known(table: Mapping[str, str], name: str) -> str:
    return table.get(name.rpartition("/")[2].lower(), "")
