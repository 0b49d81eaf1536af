"""Shows images, curves and points below the cell of a notebook, without a plotting library.

The last expression of a cell is shown: `picture` returns a Pillow image, `curves` and `points` return a `Drawing`,
which notebooks show as HTML. All take NumPy or JAX arrays.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from html import escape
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from jaxgen.errors import UserError
from jaxgen.report.charts import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, Axis, axes, figure, path_of, suits_log, widen
from jaxgen.report.images import grid
from jaxgen.report.numbers import number

if TYPE_CHECKING:
    from jaxtyping import Float, Shaped

COLOURS = ("#1f5fd0", "#d0601f", "#2e9e5b", "#9b4fd0", "#c02f6b", "#8a7a00", "#1b98a8", "#777777")
_CSS = (
    "<style>.jg-drawing figure{margin:0;max-width:34rem}.jg-drawing text{font:11px sans-serif;fill:currentColor}"
    ".jg-drawing path{fill:none;stroke:currentColor;stroke-opacity:.3}"
    + "".join(
        f".jg-drawing .line{i}{{stroke:{c};stroke-width:2;stroke-opacity:1}}.jg-drawing .dots{i}{{fill:{c}}}"
        for i, c in enumerate(COLOURS)
    )
    + "</style>"
)


@dataclasses.dataclass(frozen=True)
class Drawing:
    """Holds a drawing as HTML, which a notebook shows."""

    html: str

    def _repr_html_(self) -> str:
        return f'<div class="jg-drawing">{_CSS}{self.html}</div>'


def picture(images: Shaped[np.ndarray, "N H W C"], columns: int | None = None, scale: int | None = None) -> Image.Image:
    """Returns images side by side as one picture; the arguments and errors are those of `jaxgen.report.images.grid`."""
    return Image.fromarray(grid(np.asarray(images), columns=columns, scale=scale))


def curves(
    title: str, x: Float[np.ndarray, " P"], lines: Mapping[str, Float[np.ndarray, " P"]], against: str = "steps"
) -> Drawing:
    """Draws lines over the same x, each in its own colour; the title's line gives their last values.

    Args:
      title: the name of the chart.
      x: the places, in rising order.
      lines: `{name: values}`; a value that is not finite is left out.
      against: the name of x.

    Raises:
      UserError: there are more lines than colours, a line's length is not that of x, or nothing is finite.
    """
    found = {}
    for name, values in _checked(lines).items():
        xs, ys = np.asarray(x, np.float64), np.asarray(values, np.float64)
        if xs.shape != ys.shape or xs.ndim != 1:
            raise UserError(f"The line {name!r} has values of shape {ys.shape} at places of shape {xs.shape}.")
        kept = np.isfinite(ys)
        found[name] = (xs[kept], ys[kept])
    every = np.concatenate([y for _, y in found.values()])
    if not len(every):
        raise UserError(f"The chart {title!r} has no finite value.")
    places = np.concatenate([x for x, _ in found.values()])
    log = suits_log(every)
    horizontal = Axis(*widen(places.min(), places.max()), LEFT, WIDTH - RIGHT)
    vertical = Axis(*widen(every.min(), every.max()), HEIGHT - BOTTOM, TOP, log)
    parts = [axes(horizontal, vertical, against)]
    for i, (xs, ys) in enumerate(found.values()):
        if len(xs):
            parts.append(path_of(f"line{i}", horizontal, vertical, [list(zip(xs, ys, strict=True))]))
    ends = {name: f"{name} {number(ys[-1])}" if len(ys) else name for name, (_, ys) in found.items()}
    return _drawn(title, "".join(parts), ends, "Logarithmic scale." if log else "")


def points(title: str, sets: Mapping[str, Float[np.ndarray, "N 2"]], limit: float = 1.1) -> Drawing:
    """Draws sets of points of the plane, each in its own colour, on [-limit, limit] x [-limit, limit].

    Args:
      title: the name of the drawing.
      sets: `{name: points}`, of any shape of N rows of two numbers, such as images `[N, 1, 2, 1]`; points outside are
        left out.
      limit: the largest coordinate that is shown.

    Raises:
      UserError: there are more sets than colours, or a row is not of two numbers.
    """
    side = HEIGHT - TOP - BOTTOM
    axis = Axis(-limit, limit, 0.0, side)
    parts = [f'<path d="M0 0H{side}V{side}H0Z"/>']
    for i, (name, values) in enumerate(_checked(sets).items()):
        rows = np.asarray(values, np.float64)
        if rows.size != 2 * len(rows):
            raise UserError(f"The points {name!r} have shape {rows.shape}; a point is two numbers.")
        rows = rows.reshape(-1, 2)
        rows = rows[(np.abs(rows) <= limit).all(axis=1)]
        dots = "".join(f'<circle cx="{a:.1f}" cy="{side - b:.1f}" r="1"/>' for a, b in axis(rows))
        parts.append(f'<g class="dots{i}" fill-opacity="0.5">{dots}</g>')
    drawing = f'<g transform="translate({(WIDTH - side) / 2} {TOP})">{"".join(parts)}</g>'
    return _drawn(title, drawing, {name: name for name in sets}, "")


def _checked(named: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
    if not 0 < len(named) <= len(COLOURS):
        raise UserError(f"A drawing has 1 to {len(COLOURS)} colours, not {len(named)}; make several drawings.")
    return named


def _drawn(title: str, drawing: str, ends: Mapping[str, str], remark: str) -> Drawing:
    """Returns the figure, with a key of its colours below."""
    what = f"{title}: {', '.join(ends.values())}"
    key = "".join(
        f'<span style="color:{colour};margin-right:1em">\u25cf {escape(text)}</span>'
        for colour, text in zip(COLOURS, ends.values(), strict=False)
    )
    return Drawing(figure(title, "", drawing, what, [remark] if remark else [], []) + f"<p>{key}</p>")
