"""Numbers as text."""

from __future__ import annotations

import math

import pytest

from cwrgp.report import text


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (text.number(12.34), "12.3"),
        (text.number(-0.5), "−0.5"),
        (text.percent(12.34), "12.3\u00a0%"),
        (text.signed(3.0), "+3.0"),
        (text.signed(-3.0), "−3.0"),
        (text.tick(12000.0), "12,000"),
        (text.tick(-0.5), "−0.5"),
        (text.power_of_ten(-12), "10⁻¹²"),
        (text.plural(1, "seed"), "1 seed"),
        (text.plural(0, "seed"), "0 seeds"),
        (text.duration(8.2), "8 s"),
        (text.duration(0.1), "0 s"),
        (text.duration(120), "2 min"),
        (text.duration(200), "3 min 20 s"),
        (text.duration(3599.6), "1 h"),
        (text.duration(3900), "1 h 5 min"),
        (text.plus_minus(7.04, 0.81), "7.0 <small>± 0.8</small>"),
        (text.plus_minus(7.04, math.nan), "7.0"),
    ],
)
def test_numbers(given, expected):
    assert given == expected


def test_what_is_not_finite_is_a_dash():
    functions = (text.number, text.percent, text.signed, text.duration)
    assert {function(v) for function in functions for v in (math.nan, math.inf)} == {"–"}
