"""Charts drawn by matplotlib: as SVG inside a page, or as a figure for a file.

A style number stands for a colour of Okabe and Ito (which people with any colour vision can tell
apart), a dash and a marker, so colour is never the only sign. Charts in a page take their colours
from its style sheet (``--c0``, ``--c1``, ...) and follow its light and dark scheme.

matplotlib's settings are changed while a chart is drawn and restored after it; two threads must not
draw at the same time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator

from cwrgp.report.svg import svg_element
from cwrgp.report.text import power_of_ten, tick

# Almost black: matplotlib does not write pure black, and the style sheet replaces what is written.
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#010101")
DASHES = ("-", "--", ":", "-.")
MARKERS = "oDs^vPX"
_SOFT, _RULE, _CARD = "#5b636b", "#e3e0d8", "#fefefe"
_THEME = {_SOFT: "soft", _RULE: "rule", _CARD: "card"}
_THEME |= {colour: f"c{number}" for number, colour in enumerate(PALETTE)}
_STEPS = [1, 2, 5, 10]  # between ticks, times a power of ten
_WIDTH = 400 / 72  # inches; an SVG has 72 units to an inch, and 400 are about a phone's width
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "cwrgp",  # the same chart has the same bytes
    "text.parse_math": False,  # a dollar sign in a label is a dollar sign
    "font.family": "DejaVu Sans",  # wider than most: what fits here fits in the reader's font
    "font.size": 13.5,
    "xtick.color": _SOFT,
    "ytick.color": _SOFT,
    "text.color": _SOFT,
    "axes.labelcolor": _SOFT,
    "axes.edgecolor": _SOFT,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": _RULE,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "ytick.major.size": 0,
    "axes.titlelocation": "left",
    "axes.titlesize": "medium",
    "legend.frameon": False,
    "legend.columnspacing": 1.2,
    "figure.constrained_layout.use": True,
}
EMPTY = Markup('<p class="empty">No values were recorded for this chart.</p>')


@dataclass(frozen=True)
class Series:
    """A line, perhaps with a band.

    Attributes:
        label: its name in the legend.
        x, y: values; where y is not finite the line has a gap.
        style: number of its colour, dash and marker; None is a grey dotted line.
        low, high: ends of the band at each x; of a bar, where there is one x only.
        markers: mark every value, and show it when the pointer is on it.
    """

    label: str
    x: Sequence[float]
    y: Sequence[float]
    style: int | None = None
    low: Sequence[float] = ()
    high: Sequence[float] = ()
    markers: bool = False


def draw_series(axes: Axes, series: Sequence[Series]) -> None:
    """Draws lines and bands on axes, the last on top."""
    for number, s in enumerate(series):
        colour, dash, marker = _look(s.style)
        if len(s.x) == 1 and len(s.low):
            axes.vlines(s.x, s.low, s.high, color=colour, linewidth=1.2)
        elif len(s.low):
            axes.fill_between(s.x, s.low, s.high, color=colour, alpha=0.17, linewidth=0)
        axes.plot(
            s.x,
            s.y,
            label=s.label,
            color=colour,
            linestyle=dash,
            linewidth=2.2,
            marker=marker if s.markers or len(s.x) == 1 else "",
            markersize=7.5,
            markeredgecolor=_CARD,
            gid=f"tips{number}" if s.markers else None,
        )


def _look(style: int | None) -> tuple[str, str, str]:
    """Colour, dash and marker."""
    if style is None:
        return _SOFT, ":", "."
    return PALETTE[style % len(PALETTE)], DASHES[style % len(DASHES)], MARKERS[style % len(MARKERS)]


@matplotlib.rc_context(_STYLE)
def line_chart(
    series: Sequence[Series],
    *,
    x_label: str,
    y_label: str,
    alt: str,
    log_x: bool = False,
    log_y: bool = False,
    y_zero: bool = True,
    x_names: Sequence[str] = (),
    files: Sequence[Path] = (),
) -> Markup:
    """Draws lines over a common x axis.

    Args:
        series: lines; the last is on top.
        x_label: what x is, with its unit.
        y_label: what y is, with its unit; written above the axis.
        alt: the alternative text: what the chart shows, in words.
        log_x: logarithmic x axis with a tick at each value.
        log_y: logarithmic y axis; values that are not positive are gaps.
        y_zero: start a linear y axis at zero if no value is negative.
        x_names: what stands below x = 0, 1, 2, ...; (): the numbers.
        files: the chart is written to these as well, such as .png and .svg.

    Returns:
        An ``<svg>`` element; a paragraph that says so if there is nothing to draw.
    """
    series = [_with_gaps(s, log_y) for s in series]
    values = np.array([v for s in series for v in (*s.y, *s.low, *s.high)], dtype=float)
    if not np.isfinite(values).any():
        return EMPTY
    columns = max(1, 44 // (6 + max(len(s.label) for s in series)))  # of the legend
    rows = math.ceil(len(series) / columns)
    figure = Figure((_WIDTH, _WIDTH * 0.63 + 0.27 * rows))
    axes = figure.subplots()
    axes.grid(axis="x", visible=False)
    axes.margins(x=0.02)
    axes.set(xlabel=x_label, title=y_label)
    draw_series(axes, series)
    if x_names:
        axes.set_xticks(range(len(x_names)), x_names)
        axes.set_xlim(-0.25, len(x_names) - 0.75)
    else:
        places = sorted({x for s in series for x in s.x})
        axes.xaxis.set_major_locator(MaxNLocator(5, steps=_STEPS, integer=True))
        if log_x:
            axes.set_xscale("log")
            axes.minorticks_off()
        if log_x or len(places) == 1:
            axes.xaxis.set_major_locator(FixedLocator(places))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: tick(value)))
    if log_y:
        axes.set_yscale("log", nonpositive="mask")
        axes.minorticks_off()
        axes.yaxis.set_major_formatter(
            FuncFormatter(lambda value, _: power_of_ten(round(math.log10(value))))
        )
    else:
        axes.yaxis.set_major_locator(MaxNLocator(5, steps=_STEPS))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: tick(value)))
        if y_zero and np.nanmin(values) >= 0:
            axes.set_ylim(bottom=0)
    if len(series) > 1:
        figure.legend(loc="outside upper right", ncols=columns)
    return svg_element(figure, alt, [_tips(s, x_names) for s in series], _THEME, files)


def _with_gaps(s: Series, log_y: bool) -> Series:
    """NaN where a value cannot be drawn."""
    y = np.array(s.y, dtype=float)
    y[~np.isfinite(y) | (log_y & (y <= 0))] = np.nan
    return replace(s, y=y.tolist())


def _tips(s: Series, x_names: Sequence[str] = ()) -> list[str]:
    points = zip(s.x, s.y, strict=True) if s.markers else ()
    return [
        f"{s.label}: {y:.4g} at {x_names[int(x)] if x_names else tick(x)}"
        for x, y in points
        if math.isfinite(y)
    ]


def spectrum_chart(
    spectra: Sequence[tuple[str, int, Sequence[float]]],
    *,
    x_label: str,
    y_label: str,
    alt: str,
    files: Sequence[Path] = (),
) -> Markup:
    """Draws each eigenvalue's share of the variance, largest first, on a logarithmic axis.

    A line ends where float32 cannot tell the eigenvalues from rounding (1e-7 of the largest).

    Args:
        spectra: (label, style number, eigenvalues in any order).
        x_label, y_label, alt, files: as for :func:`line_chart`.
    """
    series = []
    for label, style, eigenvalues in spectra:
        values = np.sort(np.asarray(eigenvalues, dtype=float))[::-1]
        kept = values[values > 1e-7 * values.max(initial=0)]
        shares = (kept / values.sum()).tolist()
        series.append(Series(label, range(1, len(kept) + 1), shares, style))
    return line_chart(series, x_label=x_label, y_label=y_label, alt=alt, log_y=True, files=files)


@matplotlib.rc_context(_STYLE)
def strip_chart(
    rows: Sequence[tuple[str, int, Sequence[float]]],
    *,
    x_label: str,
    alt: str,
    x_zero: bool = True,
    files: Sequence[Path] = (),
) -> Markup:
    """Draws every single value as a dot on its row and the mean as an upright bar.

    Args:
        rows: (label, style number, values) from top to bottom.
        x_label: what the values are, with their unit.
        alt: the alternative text.
        x_zero: let the axis include zero.
        files: as for :func:`line_chart`.

    Returns:
        An ``<svg>`` element; a paragraph that says so if there is nothing to draw.
    """
    finite = [[v for v in values if math.isfinite(v)] for _, _, values in rows]
    if not any(finite):
        return EMPTY
    figure = Figure((_WIDTH, (64 + 42 * len(rows)) / 72))
    axes = figure.subplots()
    axes.grid(axis="y", visible=False)
    axes.set_xlabel(x_label)
    axes.set_yticks(range(len(rows)), [label for label, _, _ in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    tips = []
    for number, ((label, style, _), values) in enumerate(zip(rows, finite, strict=True)):
        tips.append([f"{label}: {value:.1f}" for value in values])
        if values:
            colour, _, marker = _look(style)
            axes.hlines(number, min(values), max(values), color=colour, linewidth=2.2)
            mean = sum(values) / len(values)
            axes.vlines(mean, number - 0.22, number + 0.22, color=colour, linewidth=3)
            axes.plot(
                values,
                [number] * len(values),
                color=colour,
                linestyle="",
                marker=marker,
                markersize=8.5,
                markeredgecolor=_CARD,
                clip_on=False,
                gid=f"tips{number}",
            )
    low, high = axes.dataLim.intervalx
    start = min(low, 0) if x_zero else low
    margin = 0.04 * (high - start) or 1
    axes.set_xlim(start if start == 0 else start - margin, high + margin)
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=_STEPS))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: tick(value)))
    return svg_element(figure, alt, tips, _THEME, files)


def curves(panels: Sequence[tuple[str, Sequence[Series]]], *, x_label: str) -> Figure:
    """Draws panels side by side, for a file (``Figure.savefig``).

    Args:
        panels: (title, lines) of each; the legend is in the last.
        x_label: what x is, with its unit.
    """
    figure = Figure((4.2 * len(panels), 3.2), layout="constrained")
    for axes, (title, series) in zip(
        figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True
    ):
        draw_series(axes, series)
        axes.set(title=title, xlabel=x_label)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    return figure
