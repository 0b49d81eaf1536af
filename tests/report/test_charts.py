from __future__ import annotations

import html
import json
import math
import re
from xml.etree import ElementTree

import numpy as np
import pytest

from jaxgen.report import charts, numbers


def parse(chart):
    """The figure as XML: malformed markup or a missed escape fails here."""
    return ElementTree.fromstring(chart)


def points(chart, css):
    path = next(p for p in parse(chart).iter("path") if p.get("class") == css)
    return np.asarray([[float(v) for v in re.split(r"[ ]", p)] for p in re.split("[ML]", path.get("d")) if p])


def test_higher_values_are_drawn_higher_and_later_ones_further_right():
    x, y = np.arange(10) * 100, np.asarray([5, 3, 8, 1, 0, 9, 2, 2.5, 7, 6])
    drawn = points(charts.line_chart("loss", x, y), "middle")
    assert (np.diff(drawn[:, 0]) > 0).all()
    assert (np.argsort(-drawn[:, 1]) == np.argsort(y)).all()
    # Linear: equal differences have equal lengths, up to the rounding of the coordinates.
    slope = (drawn[4, 1] - drawn[5, 1]) / 9
    np.testing.assert_allclose(drawn[4, 1] - drawn[:, 1], slope * y, atol=0.2)


def test_a_curve_that_falls_by_decades_is_logarithmic_and_says_so():
    x = np.arange(1, 60)
    chart = charts.line_chart("loss", x, list(10.0 ** (3 - x / 12)))
    drawn = points(chart, "middle")
    assert "Logarithmic" in chart
    np.testing.assert_allclose(np.diff(drawn[:, 1]), np.diff(drawn[:, 1]).mean(), atol=0.2)
    for y in ([0.0, *(10.0 ** (3 - x[1:] / 12))], list(np.linspace(1, 1000, 59)), [-1.0] * 59):
        assert "Logarithmic" not in charts.line_chart("loss", x, y)


def test_everything_stays_inside_the_drawing():
    rng = np.random.default_rng(0)
    y = np.exp(rng.normal(size=3000))
    y[1500] = 1e6
    chart = charts.line_chart("loss", np.arange(3000) * 64, y)
    for css in ("raw", "middle"):
        drawn = points(chart, css)
        assert (drawn[:, 0] >= charts.LEFT - 0.1).all() and (drawn[:, 0] <= charts.WIDTH).all()
        assert (drawn[:, 1] >= charts.TOP - 0.1).all() and (drawn[:, 1] <= charts.HEIGHT - charts.BOTTOM + 0.1).all()
    assert re.search(r"\d+ extreme values are outside", chart)
    assert len(chart) < 40_000  # however long the run


def test_a_spike_does_not_bend_the_bold_line():
    values = np.ones(500)
    values[250] = 1e9
    np.testing.assert_array_equal(charts.running_median(values, 11), np.ones(500))


def test_the_running_median_keeps_lines_and_length():
    line = np.linspace(0, 1, 101)
    np.testing.assert_allclose(charts.running_median(line, 9)[4:-4], line[4:-4])
    np.testing.assert_array_equal(charts.running_median(line, 1), line)


def test_values_that_are_not_finite_break_the_line_and_are_marked():
    y = [1.0] * 100 + [None] * 3 + [2.0] * 100
    chart = charts.line_chart("loss", range(203), y)
    marks = [p for p in parse(chart).iter("path") if p.get("class") == "lost"]
    raw = next(p for p in parse(chart).iter("path") if p.get("class") == "raw")
    assert len(marks) == 3 and raw.get("d").count("M") == 2
    assert "3 logged values not finite" in chart
    assert "not finite" in charts.line_chart("loss", [1, 2], [None, None])


@pytest.mark.parametrize("y", [[3.0], [0.0, 0.0], [-5.0, -5.0], [1e-12, 1e12], [1e300, 2e300]])
def test_degenerate_curves_are_drawn_with_finite_coordinates(y):
    chart = charts.line_chart("loss", range(len(y)), y)
    assert np.isfinite(points(chart, "middle")).all()
    assert parse(chart).find("svg/text") is not None


def test_names_are_text():
    chart = charts.line_chart('<b onclick="x">&', [0, 1], [0, 1], note="<i>")
    assert {e.tag for e in parse(chart).iter()} <= {
        "figure",
        "figcaption",
        "b",
        "output",
        "svg",
        "path",
        "text",
        "p",
    }
    assert parse(chart).find("figcaption/b").text == '<b onclick="x">&'


def test_the_readout_gives_the_values_drawn():
    chart = charts.line_chart("loss", [0, 1000, 2000], [0.5, 0.25, 0.125])
    readout = json.loads(html.unescape(re.search('data-points="([^"]*)"', chart)[1]))
    assert [p[2] for p in readout] == ["0.5 at 0 images", "0.25 at 1k images", "0.125 at 2k images"]
    np.testing.assert_allclose([p[:2] for p in readout], points(chart, "middle"), atol=0.11)


@pytest.mark.parametrize("low, high", [(0, 1), (-3, 17), (0.00012, 0.00013), (1e6, 9e6), (0, 600_000)])
def test_ticks_are_few_even_and_inside(low, high):
    found = numbers.ticks(low, high)
    assert 2 <= len(found) <= 8 and low <= found[0] and found[-1] <= high * (1 + 1e-12)
    np.testing.assert_allclose(np.diff(found), np.diff(found)[0])


@pytest.mark.parametrize("low, high", [(0.03, 0.9), (1, 1e9), (2e-5, 0.4)])
def test_log_ticks_are_few_and_inside(low, high):
    found = numbers.log_ticks(low, high)
    assert 2 <= len(found) <= 8 and low <= found[0] and found[-1] <= high


@pytest.mark.parametrize("value", [0.02134567, 1.0, -3.5, 22.2134, 1234567.0, 3.1e-7, 6.02e23, 0.99999])
def test_numbers_read_back_to_three_digits(value):
    assert math.isclose(float(numbers.number(value).replace(",", "")), value, rel_tol=5e-3)


def test_words_for_numbers():
    assert numbers.number(math.nan) == "not finite"
    assert (numbers.short(12_800), numbers.short(600_000), numbers.short(1.2e6)) == ("12.8k", "600k", "1.2M")
    assert numbers.duration(125) == "2 min 5 s" and numbers.duration(3 * 3600 + 420) == "3 h 07 min"
    assert numbers.share(599_999, 600_000) == "99.9%" and numbers.share(1, 1) == "100%"
