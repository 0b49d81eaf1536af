"""Drawings below the cells of a notebook."""

import re

import numpy as np
import pytest

from jaxgen.errors import UserError
from jaxgen.report.notebook import COLOURS, curves, picture, points


def test_a_curve_rises_where_its_values_do_and_leaves_out_what_is_not_finite():
    html = curves("loss <x>", np.arange(4.0), {"up": [0.0, 1.0, 2.0, 3.0], "gap": [3.0, np.nan, 1.0, 0.0]}).html
    up, gap = re.findall(r'<path class="line\d" d="M([^"]+)"', html)
    heights = [float(pair.split()[1]) for pair in up.split("L")]
    assert heights == sorted(heights, reverse=True) and len(set(heights)) == 4  # the axis of an SVG points down
    assert len(gap.split("L")) == 3
    assert "loss &lt;x&gt;" in html and "up 3" in html and "gap 0" in html


def test_points_lie_where_they_are_and_those_outside_are_left_out():
    html = points("two", {"a": np.array([[-1.0, -1.0], [1.0, 1.0], [9.0, 0.0]]).reshape(3, 1, 2, 1)}, limit=1.0).html
    found = [(float(x), float(y)) for x, y in re.findall(r'cx="([\d.]+)" cy="([\d.]+)"', html)]
    (left, low), (right, high) = found
    assert (left, high) == (0.0, 0.0) and right == low > 0


def test_a_notebook_shows_them():
    shown = curves("c", [0.0, 1.0], {"a": [1.0, 1.0]})._repr_html_()
    assert shown.startswith("<div") and COLOURS[0] in shown
    assert picture(np.zeros((4, 8, 8, 1), np.float32), columns=2, scale=1).size == (19, 19)


def test_what_cannot_be_drawn_is_refused():
    with pytest.raises(UserError, match="shape"):
        curves("c", [0.0, 1.0], {"a": [1.0]})
    with pytest.raises(UserError, match="no finite"):
        curves("c", [0.0], {"a": [np.nan]})
    with pytest.raises(UserError, match="colours"):
        points("p", {str(i): np.zeros((1, 2)) for i in range(9)})
    with pytest.raises(UserError, match="two numbers"):
        points("p", {"a": np.zeros((2, 3))})
