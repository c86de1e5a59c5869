"""Charts: the values given are drawn, where they belong, and told in words."""

from __future__ import annotations

import math
import re
from pathlib import Path
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest
from PIL import Image

from cwrgp.report.figures import (
    EMPTY,
    PALETTE,
    Series,
    curves,
    line_chart,
    spectrum_chart,
    strip_chart,
)

LABELS = {"x_label": "iteration", "y_label": "AP, %", "alt": "what it shows"}


def texts(svg, tag="text"):
    return [element.text for element in ElementTree.fromstring(svg).iter(tag)]


def lines(svg, colour):
    """Points of the paths of one colour, a list for each piece; without the legend's."""
    paths = [
        element.get("d")
        for element in ElementTree.fromstring(svg).iter("path")
        if f"stroke: var(--{colour})" in element.get("style", "") and element.get("clip-path")
    ]
    pieces = [piece for path in paths for piece in path.split("M") if piece]
    return [np.array(re.findall(r"([\d.]+) ([\d.]+)", piece), dtype=float) for piece in pieces]


def test_gaps_are_not_bridged_and_the_scale_is_right():
    series = Series("a", [0, 1, 2, 3, 4], [0.0, 10.0, math.nan, 5.0, 10.0], 0)
    first, second = lines(line_chart([series], **LABELS), "c0")
    (x0, bottom), (x1, top) = first
    (x3, middle), _ = second
    assert x3 - x0 == pytest.approx(3 * (x1 - x0), abs=0.2)
    assert middle == pytest.approx((top + bottom) / 2, abs=0.1) and top < bottom


def test_the_values_are_in_the_chart():
    a = Series("a", [0, 5000], [1.25, 7.5], 0, markers=True)
    b = Series("b", [0, 5000], [2.0, math.nan], 1, markers=True)
    svg = line_chart([a, b], **LABELS)
    assert texts(svg, "title") == ["a: 1.25 at 0", "a: 7.5 at 5,000", "b: 2 at 0"]
    assert {"iteration", "AP, %", "a", "b", "0", "4,000"} <= set(texts(svg))
    root = ElementTree.fromstring(svg)
    assert (root.get("role"), root.get("aria-label")) == ("img", "what it shows")


def test_a_line_is_told_by_its_dash_and_its_marker_too():
    svg = line_chart([Series(str(k), [0, 1], [k, k], k, markers=True) for k in range(7)], **LABELS)
    looks = set()
    for number in range(7):
        style = f"stroke: var(--c{number})"
        dash = {
            re.sub(r" ?stroke: [^;]*;?| ?stroke-linecap: \w+", "", path.get("style"))
            for path in ElementTree.fromstring(svg).iter("path")
            if style in path.get("style", "")
        }
        marker = {
            use.get("href")
            for use in ElementTree.fromstring(svg).iter("use")
            if f"fill: var(--c{number})" in use.get("style", "")
        }
        assert len(dash) == len(marker) == 1
        looks.add((*dash, *marker))
    assert len(looks) == 7 and len({marker for _, marker in looks}) == 7


def test_a_band_reaches_from_low_to_high():
    band = Series("a", [0, 1], [2.0, 2.0], 0, low=[1.0, 0.0], high=[3.0, 4.0])
    svg = line_chart([band], **LABELS)
    ((_, middle), _) = lines(svg, "c0")[0]
    shape = next(p for p in ElementTree.fromstring(svg).iter("path") if p.get("d").endswith("z"))
    heights = [float(y) for y in re.findall(r"[ML] [\d.]+ -([\d.]+)", shape.get("d"))]
    centre = (max(heights) + min(heights)) / 2
    height = float(ElementTree.fromstring(svg).get("viewBox").split()[3])
    assert height - centre == pytest.approx(middle, abs=0.6)
    assert max(heights) - min(heights) > 100


def test_a_single_point_has_a_bar_and_its_place_on_the_axis():
    """Ticks at whole numbers around it would have no meaning."""
    others = Series("b", [18], [3.0], 1)
    charts = [
        line_chart([Series("a", [18], [2.0], 0, [low], [4.0]), others], **LABELS)
        for low in (0.0, 1.0)
    ]
    whole, bar = (next(line for line in lines(svg, "c0") if len(line) == 2) for svg in charts)
    assert bar[0, 0] == bar[1, 0]
    assert np.ptp(bar[:, 1]) == pytest.approx(0.75 * np.ptp(whole[:, 1]), rel=0.02)
    shown = texts(charts[1])
    assert shown.count("18") == 1 and "17" not in shown and "20" not in shown


def test_a_logarithmic_axis_shows_powers_and_leaves_out_what_has_no_logarithm():
    series = Series("a", [1, 2, 3], [1.0, 0.0, 1e-4], 0, markers=True)
    svg = line_chart([series], log_y=True, **LABELS)
    assert {"10⁰", "10⁻⁴"} <= set(texts(svg))
    assert texts(svg, "title") == ["a: 1 at 1", "a: 0.0001 at 3"]


def test_a_spectrum_is_shares_in_order_and_ends_at_rounding():
    svg = spectrum_chart([("a", 0, [1.0, 8.0, 1.0, 1e-9, 0.0])], **LABELS)
    ((x1, high), (x2, low), (x3, last)) = lines(svg, "c0")[0]
    assert high < low == last and x3 - x2 == pytest.approx(x2 - x1, abs=0.2)
    assert spectrum_chart([("a", 0, [])], **LABELS) == EMPTY


def test_every_seed_is_a_dot_on_its_row():
    svg = strip_chart(
        [("first", 0, [10.0, 20.0]), ("second", 1, [math.nan, 15.0]), ("third", 2, [])],
        x_label="AP",
        alt="seeds",
    )
    assert texts(svg, "title") == ["first: 10.0", "first: 20.0", "second: 15.0"]
    assert {"first", "second", "third", "AP"} <= set(texts(svg))
    dots = [use for use in ElementTree.fromstring(svg).iter("use") if len(use)]
    (x0, x1, x2), (y0, y1, y2) = ([float(dot.get(axis)) for dot in dots] for axis in "xy")
    assert x2 == pytest.approx((x0 + x1) / 2, abs=0.1) and y0 == y1 < y2


def test_a_strip_of_seeds_may_leave_out_zero():
    rows = [("a", 0, [40.0, 41.0]), ("b", 1, [40.5])]
    assert "0" in texts(strip_chart(rows, x_label="AP", alt="seeds"))
    near = texts(strip_chart(rows, x_label="AP", alt="seeds", x_zero=False))
    assert "0" not in near and {"40", "41"} <= set(near)
    for values in ([0.0], [-1.0, 1.0], [40.0]):
        assert "svg" in strip_chart([("a", 0, values)], x_label="AP", alt="one", x_zero=False)


@pytest.mark.parametrize("y", [[], [math.nan, math.nan]])
def test_a_chart_without_values_says_so(y):
    series = Series("a", range(len(y)), y, 0)
    assert line_chart([series], **LABELS) == EMPTY
    assert strip_chart([("a", 0, y)], x_label="x", alt="a") == EMPTY


def test_texts_are_taken_literally():
    evil = '</text><script>alert("$x^2$")</script>'
    svg = line_chart(
        [Series(evil, [0, 1], [1, 2], 0, markers=True), Series("b", [0], [1], 1)],
        x_label=evil,
        y_label=evil,
        alt=evil,
    )
    assert "<script" not in svg
    root = ElementTree.fromstring(svg)
    assert root.get("aria-label") == evil
    assert texts(svg).count(evil) == 3 and f"{evil}: 1 at 0" in texts(svg, "title")


def test_a_chart_follows_the_style_sheet_and_loads_nothing():
    svg = line_chart(
        [Series("a", [0, 1], [1, 2], style, markers=True) for style in (None, *range(7))], **LABELS
    )
    assert "http" not in svg and "font-family" not in svg and "<style" not in svg
    assert set(re.findall(r"#(\w+)", svg)) <= set(re.findall(r'id="(\w+)"', svg)), "no colours"
    assert set(re.findall(r"--(\w+)", svg)) == {
        "soft",
        "rule",
        "card",
        *(f"c{k}" for k in range(7)),
    }
    assert len(svg) < 30_000


def test_the_same_chart_is_the_same_text_and_leaves_matplotlib_as_it_was():
    before = dict(matplotlib.rcParams)
    series = [Series("a", [0, 1], [1, 2], 0, markers=True)]
    assert line_chart(series, **LABELS) == line_chart(series, **LABELS)
    assert dict(matplotlib.rcParams) == before


def test_curves_for_a_file():
    panels = [("loss", [Series("a", [0, 1], [1, 2], 0)]), ("knn", [Series("b", [0, 1], [3, 4], 1)])]
    figure = curves(panels, x_label="step")
    assert [axes.get_title() for axes in figure.axes] == ["loss", "knn"]
    assert [axes.get_xlabel() for axes in figure.axes] == ["step", "step"]
    assert [axes.lines[0].get_color() for axes in figure.axes] == list(PALETTE[:2])
    assert figure.axes[1].lines[0].get_ydata().tolist() == [3, 4]


def test_named_places_stand_below_the_axis() -> None:
    series = [Series("a", [0, 1, 2], [3.0, 5.0, 4.0], 0, markers=True)]
    labels = {"x_label": "batch size", "y_label": "accuracy, %", "alt": "a chart"}
    svg = line_chart(series, **labels, x_names=["32", "64", "256"])
    assert re.findall(r"<title>(.*?)</title>", svg) == ["a: 3 at 32", "a: 5 at 64", "a: 4 at 256"]
    assert all(f">{name}</text>" in svg for name in ("32", "64", "256"))


def test_a_chart_is_written_to_files_as_well(tmp_path: Path) -> None:
    files = [tmp_path / "figures" / f"a.{suffix}" for suffix in ("svg", "png")]
    rows = [("one", 0, [1.0, 2.0])]
    plain = strip_chart(rows, x_label="AP", alt="a chart")
    assert strip_chart(rows, x_label="AP", alt="a chart", files=files) == plain
    root = ElementTree.parse(files[0]).getroot()
    assert root.tag.endswith("svg") and "var(--" not in files[0].read_text()
    with Image.open(files[1]) as image:
        assert image.size[0] > 800 and image.convert("RGB").getpixel((0, 0)) == (255, 255, 255)
    again = [tmp_path / f"again.{suffix}" for suffix in ("svg", "png")]
    strip_chart(rows, x_label="AP", alt="a chart", files=again)
    assert [f.read_bytes() for f in again] == [f.read_bytes() for f in files]
