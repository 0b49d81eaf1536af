"""Draws one metric of several runs in one chart, against the images seen or against the time of training."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from jaxgen.report.charts import (
    BOTTOM,
    HEIGHT,
    LEFT,
    POINTS,
    RIGHT,
    TOP,
    WIDTH,
    WINDOWS,
    Axis,
    axes,
    figure,
    path_of,
    running_median,
    suits_log,
    value_range,
    widen,
)
from jaxgen.report.comparison.runs import Run
from jaxgen.report.numbers import duration, number, short

AGAINST = {"images": "images seen", "seconds": "minutes of training"}
UNIT = {"images": 1.0, "seconds": 60.0}
NOT_METRICS = ("step", "images", "seconds")


def metric_groups(runs: Sequence[Run]) -> dict[str, list[str]]:
    """Returns `{the part of the names before the last slash: names}` of all metrics of all runs, in their order."""
    found: dict[str, list[str]] = {}
    for run in runs:
        for row in run.rows:
            for key in row:
                group = key.rpartition("/")[0] or "whole run"
                if key not in NOT_METRICS and key not in found.setdefault(group, []):
                    found[group].append(key)
    return {group: keys for group, keys in found.items() if keys}


def chart(key: str, runs: Sequence[Run], against: str) -> str:
    """Draws a metric of all runs that have it, each in the colour of its place; the lines are running medians.

    Args:
      key: the metric's name.
      runs: the runs; line i has the class `line<i>`.
      against: "images" or "seconds".
    """
    lines = {i: found for i, run in enumerate(runs) if (found := _line(run.rows, key, against)) is not None}
    title = key.rpartition("/")[2]
    if not lines:
        return figure(title, "not finite", "", "no finite value", ["None of its logged values was finite."], [])
    ys = np.concatenate([y for _, y in lines.values()])
    log = suits_log(ys)
    low, high = value_range(ys, ys, log)
    horizontal = Axis(*widen(0.0, max(x[-1] for x, _ in lines.values())), LEFT, WIDTH - RIGHT)
    vertical = Axis(low, high, HEIGHT - BOTTOM, TOP, log)
    parts = [axes(horizontal, vertical, AGAINST[against])]
    for i, (x, y) in lines.items():
        parts.append(path_of(f"line line{i}", horizontal, vertical, [list(zip(x, y, strict=True))]))
        if len(x) == 1:
            parts.append(f'<circle class="dot{i}" cx="{horizontal(x[0]):.1f}" cy="{vertical(y[0]):.1f}" r="3"/>')
    ends = " · ".join(f"{runs[i].name} {number(y[-1])}" for i, (_, y) in lines.items())
    remarks = ["Logarithmic scale."] if log else []
    missing = [run.name for i, run in enumerate(runs) if i not in lines]
    if missing:
        remarks.append(f"Without it: {', '.join(missing)}.")
    what = f"{key} against {AGAINST[against]}, at the end {ends}"
    hover = _hover(runs, lines, horizontal, vertical, against)
    return figure(title, f"{ends} at the end", "".join(parts), what, remarks, hover)


def _line(rows: Sequence[Mapping[str, float | None]], key: str, against: str) -> tuple[np.ndarray, np.ndarray] | None:
    """Returns the points of a run's line, in rising order of x, both `[N]`; None where no value is finite."""
    found = [(row[against], row[key]) for row in rows if row.get(key) is not None and row.get(against) is not None]
    points = [(x, y) for x, y in found if x is not None and y is not None and math.isfinite(y)]
    if not points:
        return None
    x, y = (np.asarray(values, np.float64) for values in zip(*points, strict=True))
    smooth = running_median(y, max(1, len(y) // WINDOWS) | 1)
    order = np.argsort(x, kind="stable")
    keep = np.unique(np.linspace(0, len(x) - 1, min(len(x), POINTS)).round().astype(int))
    return x[order][keep] / UNIT[against], smooth[order][keep]


def _hover(
    runs: Sequence[Run], lines: Mapping[int, tuple[np.ndarray, np.ndarray]], horizontal: Axis, vertical: Axis,
    against: str,
) -> list[tuple[float, float, str]]:  # fmt: skip
    """Returns, for each place where a run has a value, the values of all runs there, between their points by a line."""
    places = np.unique(np.concatenate([x for x, _ in lines.values()]))
    places = places[np.unique(np.linspace(0, len(places) - 1, min(len(places), POINTS)).round().astype(int))]
    found = []
    for place in places:
        values = {i: float(np.interp(place, x, y)) for i, (x, y) in lines.items() if x[0] <= place <= x[-1]}
        where = f"{short(place)} images" if against == "images" else duration(60 * place)
        text = " · ".join([*(f"{runs[i].name} {number(value)}" for i, value in values.items()), f"at {where}"])
        height = float(vertical(min(max(next(iter(values.values())), vertical.low), vertical.high)))
        found.append((round(float(horizontal(place)), 1), round(height, 1), text))
    return found
