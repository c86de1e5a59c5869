"""Timing of two functions in turn."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

Pair = tuple[Callable[[], object], Callable[[], object]]


@dataclass(frozen=True, kw_only=True)
class Row:
    """Two ways to do the same.

    Attributes:
        name: of what is done.
        against: what the baseline is.
        prepare: makes both functions, this project's first.
        amount: how much a call does, in ``unit``.
        unit: such as "views".
        target: the ratio that was aimed at; None: none.
        max_rounds: of a row whose baseline takes long, which is warmed up once only; None: no
            limit.
    """

    name: str
    against: str
    prepare: Callable[[], Pair]
    amount: float = 1
    unit: str = "calls"
    target: float | None = None
    max_rounds: int | None = None


def measure(row: Row, rounds: int) -> dict[str, Any]:
    """Times both sides in turn, after two rounds that warm up.

    Args:
        row: what is timed.
        rounds: that are measured, 2 or more; fewer where the row has a limit.

    Returns:
        Medians of the amounts per second, the median of the ratios and their quartiles.
    """
    warm_up = 2 if row.max_rounds is None else 1
    rounds = rounds if row.max_rounds is None else min(rounds, row.max_rounds)
    functions = row.prepare()
    times: list[list[float]] = []
    for _ in range(warm_up + rounds):
        pair = []
        for function in functions:
            start = time.perf_counter()
            function()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            pair.append(time.perf_counter() - start)
        times.append(pair)
    times = times[warm_up:]
    ratios = [b / a for a, b in times]
    low, _, high = statistics.quantiles(ratios, n=4)
    return {
        "name": row.name,
        "against": row.against,
        "target": row.target,
        "unit": row.unit,
        "per_second": [row.amount / statistics.median(side) for side in zip(*times, strict=True)],
        "ratio": statistics.median(ratios),
        "ratio_spread": [low, high],
        "rounds": rounds,
    }
