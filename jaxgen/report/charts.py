"""Draws learning curves as inline SVG, which needs no scripts and follows the page's colours (light or dark).

The logged values are a faint line, and their running median is a bold one. The SVG is written by hand and not by a
plotting library, so that the text stays text, the colours follow the reader's theme, and a chart takes a few kilobytes.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from jaxgen.report.numbers import log_ticks, number, short, ticks

WIDTH, HEIGHT = 360, 190  # the size of the drawing, in its own units
LEFT, RIGHT, TOP, BOTTOM = 48, 10, 10, 34  # the margins
BUCKETS = 200  # the raw line is cut into this many parts, and each keeps its lowest and its highest value
POINTS = 160  # the running median is drawn with at most this many points
WINDOWS = 50  # the running median covers a fiftieth of the history


@dataclass(frozen=True)
class Axis:
    """Maps values in [low, high] to positions [start, end] in the drawing, linearly or by their logarithm."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: np.ndarray | float) -> np.ndarray:
        low, high, value = (np.log(v) if self.log else np.asarray(v) for v in (self.low, self.high, value))
        return self.start + (value - low) / (high - low) * (self.end - self.start)


def running_median(values: np.ndarray, window: int) -> np.ndarray:
    """Returns the medians `[N]` of `values` `[N]` over a centred window of an odd length, which is cut at both ends.

    It is not the mean, since one spike would then draw a plateau as wide as the window.
    """
    half = window // 2
    padded = np.pad(values, half, constant_values=np.nan)
    return np.nanmedian(np.lib.stride_tricks.sliding_window_view(padded, 2 * half + 1), axis=-1)


def suits_log(values: np.ndarray) -> bool:
    """Returns whether a logarithmic axis is better: values are positive, most are at the low end of a wide range."""
    if values.min() <= 0:
        return False
    low, middle, high = np.percentile(values, [1, 50, 99])
    return high / low >= 20 and middle - low < 0.25 * (high - low)


def line_chart(
    name: str, x: Sequence[float], y: Sequence[float | None], note: str = "", against: str = "images seen"
) -> str:
    """Draws one metric against the training images seen, or against another quantity, as an HTML `<figure>`.

    Args:
      name: the chart's title, as plain text.
      x: images seen, in rising order, `[N]`.
      y: values, `[N]`; None stands for a value that was not finite.
      note: a line of help below the chart, as plain text.
      against: the name of x.
    """
    unit = "images" if against == "images seen" else against
    xs = np.asarray(x, np.float64)
    ys = np.asarray([math.nan if v is None else v for v in y], np.float64)
    finite = np.isfinite(ys)
    lost = xs[~finite]
    remarks = [note] if note else []
    if not finite.any():
        drawing, latest, what = "", "not finite", "no finite value"
        remarks.append(f"None of its {len(lost)} logged values was finite.")
        return figure(name, latest, drawing, what, remarks, [])

    fx, fy = xs[finite], ys[finite]
    window = max(1, len(fy) // WINDOWS) | 1
    smooth = running_median(fy, window)
    log = suits_log(fy)
    low, high = value_range(fy, smooth, log)
    horizontal = Axis(*widen(0.0, xs.max()), LEFT, WIDTH - RIGHT)
    vertical = Axis(low, high, HEIGHT - BOTTOM, TOP, log)
    clipped = int(((fy < low) | (fy > high)).sum())

    parts = [axes(horizontal, vertical, against)]
    if window > 1:
        parts.append(path_of("raw", horizontal, vertical, _envelope(xs, ys)))
    keep = np.unique(np.linspace(0, len(fx) - 1, min(len(fx), POINTS)).round().astype(int))
    bold = list(zip(fx[keep], smooth[keep], strict=True))
    parts.append(path_of("middle", horizontal, vertical, [bold]))
    if len(fx) == 1:
        parts.append(f'<circle class="dot" cx="{horizontal(fx[0]):.1f}" cy="{vertical(fy[0]):.1f}" r="3"/>')
    parts += [f'<path class="lost" d="M{horizontal(v):.1f} {TOP}l-4 -7h8z"/>' for v in lost[:100]]

    if log:
        remarks.append("Logarithmic scale.")
    if clipped:
        remarks.append(f"{clipped} extreme value{'s are' if clipped > 1 else ' is'} outside the chart.")
    if len(lost):
        remarks.append(f"Red mark: {len(lost)} logged value{'s' * (len(lost) > 1)} not finite.")
    hover = [
        [round(float(horizontal(a)), 1), round(float(vertical(b)), 1), f"{number(b)} at {short(a)} {unit}"]
        for a, b in bold
    ]
    ends = f"from {number(smooth[0])} to {number(smooth[-1])} at {short(fx[-1])} {unit}"
    what = f"{name} against {against}: {ends}"
    return figure(name, number(smooth[-1]), "".join(parts), what, remarks, hover)


def figure(name: str, latest: str, drawing: str, what: str, remarks: list[str], hover: list) -> str:
    """Returns the HTML of a chart.

    Args:
      name, latest: the title and the text beside it, as plain text.
      drawing: the content of the SVG.
      what: what the chart shows, for people who do not see it.
      remarks: sentences below the chart.
      hover: `[x, y, text]` of points; the page's script shows the text where a reader points.
    """
    svg = (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(what)}" '
        f'data-points="{escape(json.dumps(hover, separators=(",", ":")))}">{drawing}</svg>'
    )
    help_line = f'<p class="help">{escape(" ".join(remarks))}</p>' if remarks else ""
    return (
        f'<figure class="chart"><figcaption><b>{escape(name)}</b> <output>{escape(latest)}</output>'
        f"</figcaption>{svg if drawing else ''}{help_line}</figure>"
    )


def widen(low: float, high: float) -> tuple[float, float]:
    """Returns the range, with a margin on both sides if it is empty."""
    if high > low:
        return float(low), float(high)
    margin = abs(low) * 0.1 or 1.0
    return float(low - margin), float(high + margin)


def value_range(values: np.ndarray, smooth: np.ndarray, log: bool) -> tuple[float, float]:
    """Returns the range of the vertical axis: the complete median, and the raw values from percentile 1 to 99."""
    inner = np.percentile(values, [1, 99]) if len(values) >= 100 else (values.min(), values.max())
    low, high = widen(min(inner[0], smooth.min()), max(inner[1], smooth.max()))
    if log:
        margin = (high / low) ** 0.04
        return low / margin, high * margin
    margin = 0.04 * (high - low)
    # An axis that starts at zero shows how much of the value is left.
    if 0 <= low < 0.3 * high:
        return 0.0, high + margin
    return low - margin, high + margin


def _envelope(xs: np.ndarray, ys: np.ndarray) -> list[list[tuple[float, float]]]:
    """Returns the raw line in pieces, broken where a value is missing, with the extremes of each bucket only."""
    pieces = []
    for is_finite, indices in itertools.groupby(range(len(ys)), key=lambda i: bool(np.isfinite(ys[i]))):
        if not is_finite:
            continue
        run = list(indices)
        size = max(1, math.ceil(len(ys) / BUCKETS))
        piece = []
        for start in range(0, len(run), size):
            bucket = run[start : start + size]
            extremes = {min(bucket, key=lambda i: ys[i]), max(bucket, key=lambda i: ys[i])}
            piece += [(xs[i], ys[i]) for i in sorted(extremes)]
        pieces.append(piece)
    return pieces


def path_of(css: str, horizontal: Axis, vertical: Axis, pieces: list[list[tuple[float, float]]]) -> str:
    """Returns a line in pieces as an SVG path of a class; values outside of the vertical axis are drawn at its ends."""
    steps = []
    for piece in pieces:
        a = horizontal(np.asarray([p[0] for p in piece]))
        b = vertical(np.clip([p[1] for p in piece], vertical.low, vertical.high))
        steps.append("M" + "L".join(f"{u:.1f} {v:.1f}" for u, v in zip(a, b, strict=True)))
    return f'<path class="{css}" d="{"".join(steps)}"/>'


def axes(horizontal: Axis, vertical: Axis, against: str = "images seen") -> str:
    """Returns the lines and labels of both axes as SVG; `against` is the name of the horizontal one."""
    rows = (log_ticks if vertical.log else ticks)(vertical.low, vertical.high)
    columns = ticks(horizontal.low, horizontal.high, 4)
    base = HEIGHT - BOTTOM
    parts = []
    for value in rows:
        y = float(vertical(value))
        parts.append(f'<path class="rule" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{short(value)}</text>')
    for value in columns:
        x = float(horizontal(value))
        side = "end" if x > WIDTH - RIGHT - 14 else "middle"
        x_text = WIDTH - RIGHT + 4 if side == "end" else x
        parts.append(f'<path class="rule" d="M{x:.1f} {base}v4"/>')
        parts.append(f'<text x="{x_text:.1f}" y="{base + 15}" text-anchor="{side}">{short(value)}</text>')
    parts.append(f'<path class="axis" d="M{LEFT} {base}H{WIDTH - RIGHT}"/>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text class="unit" x="{middle}" y="{HEIGHT - 4}" text-anchor="middle">{escape(against)}</text>')
    return "".join(parts)
