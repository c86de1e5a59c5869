"""Numbers as text; a value that is not finite is a dash."""

from __future__ import annotations

import math

from markupsafe import Markup

DASH = "–"
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def number(value: float) -> str:
    """12.34 as "12.3"."""
    return f"{value:.1f}".replace("-", "−") if math.isfinite(value) else DASH


def percent(value: float) -> str:
    """12.34 as "12.3 %"."""
    return f"{number(value)}\u00a0%" if math.isfinite(value) else DASH


def signed(value: float) -> str:
    """12.34 as "+12.3"."""
    return f"{value:+.1f}".replace("-", "−") if math.isfinite(value) else DASH


def tick(value: float) -> str:
    """A number on an axis: 12000.0 as "12,000", 0.50 as "0.5"."""
    text = f"{value:,.0f}" if value == round(value) else f"{value:g}"
    return text.replace("-", "−")


def power_of_ten(exponent: int) -> str:
    """-3 as "10⁻³"."""
    return f"10{str(exponent).translate(_SUPERSCRIPTS)}"


def plus_minus(mean: float, deviation: float) -> Markup:
    """Mean ± deviation; the mean alone if there is no deviation."""
    if not math.isfinite(deviation):
        return Markup.escape(number(mean))
    return Markup("{} <small>± {}</small>").format(number(mean), number(deviation))


def plural(count: int, noun: str) -> str:
    """1 as "1 seed", 3 as "3 seeds"."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def duration(seconds: float) -> str:
    """8 as "8 s", 200 as "3 min 20 s", 3900 as "1 h 5 min"."""
    if not math.isfinite(seconds):
        return DASH
    whole = round(seconds)
    large, small, units = (*divmod(whole, 60), ("min", "s"))
    if whole >= 3600:
        large, small, units = (*divmod(whole // 60, 60), ("h", "min"))
    parts = [f"{n} {unit}" for n, unit in zip((large, small), units, strict=True) if n]
    return " ".join(parts) or "0 s"
