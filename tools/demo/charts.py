"""Small SVG charts whose colours and type come from the page's style sheet (light and dark).

A series names its CSS class ("pretrained", "random", "plain"): the same arm has the same colour,
dash and marker on every chart, so colour is never the only sign.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape

WIDTH, HEIGHT = 400, 260  # in CSS pixels on a phone, nearly: text keeps its size there
_LEFT, _RIGHT, _TOP, _BOTTOM = 50, 20, 34, 46
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True)
class Series:
    """A line, perhaps with a band from ``low`` to ``high``; values that are not finite are gaps."""

    label: str
    style: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] = field(default_factory=tuple)
    high: Sequence[float] = field(default_factory=tuple)
    markers: bool = False


@dataclass(frozen=True)
class _Scale:
    """Maps values to positions, linearly or by logarithm."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high = self.low, self.high
        if self.log:
            low, high, value = math.log10(low), math.log10(high), math.log10(value)
        return self.start + (value - low) / (high - low) * (self.end - self.start)


def nice_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """About ``count`` round numbers (1, 2 or 5 times a power of ten apart) that span low..high."""
    if not high > low:
        low, high = low - 0.5, high + 0.5
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 10) for i in range(first, last + 1)]


def number(value: float) -> str:
    """A tick's text: thousands grouped, no needless zeros."""
    if value == int(value):
        return f"{int(value):,}".replace("-", "\u2212")
    return f"{value:g}".replace("-", "\u2212")


def line_chart(
    series: Sequence[Series],
    *,
    x_label: str,
    y_label: str,
    description: str,
    log_y: bool = False,
    y_zero: bool = True,
) -> str:
    """Draws lines over a common x axis.

    Args:
        series: lines; the last is on top.
        x_label: what x is, with its unit.
        y_label: what y is, with its unit; written above the axis, upright.
        description: the alternative text: what the chart shows, in words.
        log_y: logarithmic y axis; values that are not positive are gaps.
        y_zero: start a linear y axis at zero.

    Returns:
        An ``<svg>`` element; a paragraph that says so if there is nothing to draw.
    """

    def usable(value: float) -> bool:
        return math.isfinite(value) and (value > 0 or not log_y)

    xs = [x for s in series for x in s.x]
    ys = [y for s in series for y in (*s.y, *s.low, *s.high) if usable(y)]
    if not xs or not ys:
        return '<p class="empty">No values were recorded for this chart.</p>'
    x_ticks = nice_ticks(min(xs), max(xs), 5)
    x_scale = _Scale(min(xs), max(xs) if max(xs) > min(xs) else min(xs) + 1, _LEFT, WIDTH - _RIGHT)
    x_ticks = [t for t in x_ticks if x_scale.low <= t <= x_scale.high]
    if log_y:
        decades = range(math.floor(math.log10(min(ys))), math.ceil(math.log10(max(ys)) + 1e-9) + 1)
        every = max(1, -(-len(decades) // 6))
        y_ticks = [10.0**d for d in decades]
        y_scale = _Scale(
            y_ticks[0], max(y_ticks[-1], 10 * y_ticks[0]), HEIGHT - _BOTTOM, _TOP, True
        )
        y_ticks = y_ticks[::every]
        texts = [f"10{str(d).translate(_SUPERSCRIPTS)}" for d in decades][::every]
    else:
        y_ticks = nice_ticks(0 if y_zero and min(ys) >= 0 else min(ys), max(ys), 5)
        y_scale = _Scale(y_ticks[0], y_ticks[-1], HEIGHT - _BOTTOM, _TOP)
        texts = [number(t) for t in y_ticks]

    parts = [_axes(x_ticks, x_scale, y_ticks, texts, y_scale, x_label, y_label, bool(series[1:]))]
    for s in series:
        if s.low and s.high:
            parts.append(_band(s, x_scale, y_scale))
    for s in series:
        points = [
            (x_scale(x), y_scale(y), x, y) if usable(y) else None
            for x, y in zip(s.x, s.y, strict=True)
        ]
        parts.append(_line(s, points))
    if len(series) > 1:
        parts.append(_legend(series))
    return _svg("".join(parts), HEIGHT, description)


def _axes(
    x_ticks: Sequence[float],
    x_scale: _Scale,
    y_ticks: Sequence[float],
    y_texts: Sequence[str],
    y_scale: _Scale,
    x_label: str,
    y_label: str,
    legend: bool,
) -> str:
    parts = []
    for tick, text in zip(y_ticks, y_texts, strict=True):
        y = y_scale(tick)
        parts.append(f'<path class="grid" d="M{_LEFT} {y:.1f}H{WIDTH - _RIGHT}"/>')
        parts.append(f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{text}</text>')
    base = HEIGHT - _BOTTOM
    parts.append(f'<path class="axis" d="M{_LEFT} {base}H{WIDTH - _RIGHT}"/>')
    for tick in x_ticks:
        x = x_scale(tick)
        parts.append(f'<path class="axis" d="M{x:.1f} {base}v5"/>')
        parts.append(
            f'<text x="{x:.1f}" y="{base + 19}" text-anchor="middle">{number(tick)}</text>'
        )
    middle = (_LEFT + WIDTH - _RIGHT) / 2
    parts.append(
        f'<text class="label" x="{middle:.0f}" y="{HEIGHT - 8}" text-anchor="middle">'
        f"{escape(x_label)}</text>"
    )
    parts.append(f'<text class="label" x="2" y="15">{escape(y_label)}</text>')
    return "".join(parts)


def _band(s: Series, x_scale: _Scale, y_scale: _Scale) -> str:
    rows = [
        (x, low, high)
        for x, low, high in zip(s.x, s.low, s.high, strict=True)
        if math.isfinite(low) and math.isfinite(high)
    ]
    upper = [f"{x_scale(x):.1f} {y_scale(high):.1f}" for x, _, high in rows]
    lower = [f"{x_scale(x):.1f} {y_scale(low):.1f}" for x, low, _ in reversed(rows)]
    return f'<path class="band {s.style}" d="M{"L".join(upper + lower)}Z"/>' if rows else ""


def _line(s: Series, points: Sequence[tuple[float, float, float, float] | None]) -> str:
    path, pen_down = [], False
    for point in points:
        if point is not None:
            path.append(f"{'L' if pen_down else 'M'}{point[0]:.1f} {point[1]:.1f}")
        pen_down = point is not None
    parts = [f'<path class="line {s.style}" d="{"".join(path)}"/>']
    if s.markers:
        parts += [
            _marker(s.style, p[0], p[1], f"{s.label}: {p[3]:.4g} at {number(p[2])}")
            for p in points
            if p is not None
        ]
    return "".join(parts)


def _marker(style: str, x: float, y: float, tip: str) -> str:
    """A disc for the pretrained arm, a diamond for the random one: told apart without colour."""
    shape = (
        f'<path class="dot {style}" d="M{x:.1f} {y - 5.2:.1f}l5.2 5.2l-5.2 5.2l-5.2 -5.2Z">'
        if style == "random"
        else f'<path class="dot {style}" d="M{x - 4:.1f} {y:.1f}a4 4 0 1 0 8 0a4 4 0 1 0 -8 0Z">'
    )
    return f"{shape}<title>{escape(tip)}</title></path>"


def _legend(series: Sequence[Series]) -> str:
    """Labels in a row at the top right; widths are estimated from the number of letters."""
    widths = [42 + 7.2 * len(s.label) for s in series]
    x, parts = WIDTH - _RIGHT - sum(widths) + 12, []
    for s, width in zip(series, widths, strict=True):
        parts.append(f'<path class="line {s.style}" d="M{x:.0f} 11h20"/>')
        if s.markers:
            parts.append(_marker(s.style, x + 10, 11, s.label))
        parts.append(f'<text x="{x + 26:.0f}" y="15">{escape(s.label)}</text>')
        x += width
    return "".join(parts)


def strip_chart(
    rows: Sequence[tuple[str, str, Sequence[float]]], *, x_label: str, description: str
) -> str:
    """Draws every single value as a dot on its row, the mean as an upright bar: the spread is seen.

    Args:
        rows: (label, style, values) from top to bottom.
        x_label: what the values are, with their unit.
        description: the alternative text.
    """
    values = [v for _, _, row in rows for v in row if math.isfinite(v)]
    if not values:
        return '<p class="empty">No values were recorded for this chart.</p>'
    left, step, top = 146, 46, 8
    base = top + step * len(rows)
    ticks = nice_ticks(0, max(values), 5)
    scale = _Scale(0, ticks[-1], left, WIDTH - _RIGHT)
    parts = []
    for tick in ticks:
        x = scale(tick)
        parts.append(f'<path class="grid" d="M{x:.1f} {top}V{base}"/>')
        parts.append(
            f'<text x="{x:.1f}" y="{base + 18}" text-anchor="middle">{number(tick)}</text>'
        )
    for index, (label, style, row) in enumerate(rows):
        y = top + step * (index + 0.5)
        finite = [v for v in row if math.isfinite(v)]
        parts.append(
            f'<text x="{left - 12}" y="{y + 4:.1f}" text-anchor="end">{escape(label)}</text>'
        )
        if finite:
            low, high, middle = (
                scale(min(finite)),
                scale(max(finite)),
                scale(sum(finite) / len(finite)),
            )
            parts.append(f'<path class="line solid {style}" d="M{low:.1f} {y:.1f}H{high:.1f}"/>')
            parts.append(f'<path class="mean {style}" d="M{middle:.1f} {y - 10:.1f}v20"/>')
        parts += [_marker(style, scale(v), y, f"{label}: {v:.1f}") for v in finite]
    middle = (left + WIDTH - _RIGHT) / 2
    parts.append(
        f'<text class="label" x="{middle:.0f}" y="{base + 40}" text-anchor="middle">'
        f"{escape(x_label)}</text>"
    )
    return _svg("".join(parts), base + 48, description)


def _svg(body: str, height: float, description: str) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-label="{escape(description)}">'
        f"{body}</svg>"
    )
