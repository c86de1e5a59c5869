"""Scores as text."""

from __future__ import annotations

from typing import Any

from tabulate import tabulate


def as_text(scores: dict[str, Any]) -> str:
    """Tables of what `d2_transfer.score` returns: the metrics, and AP of each class.

    ``bbox`` and ``segm`` bear the name of the protocol as well; "-": there are no such objects.
    """
    kinds = [kind for kind in scores if kind != "protocol"]
    metrics = [name for name in scores[kinds[0]] if name != "per_class"]
    rows = [[_label(kind, scores), *(_shown(scores[kind][m]) for m in metrics)] for kind in kinds]
    classes = [
        [name, *(_shown(scores[kind]["per_class"][name]) for kind in kinds)]
        for name in scores[kinds[0]]["per_class"]
    ]
    names = [_label(kind, scores) for kind in kinds]
    return "\n\n".join([_table(["in %", *metrics], rows), _table(["class", *names], classes)])


def comparison_as_text(comparison: dict[str, Any]) -> str:
    """The verdict, and tables of what `d2_transfer.compare` returns: metrics, then classes."""
    parts = [comparison["verdict"]]
    for kind, differences in comparison["difference"].items():
        first, second = comparison["first"][kind], comparison["second"][kind]
        name = f"{kind} ({comparison['protocol']})"
        headers = ["first", "second", "difference", "95 % interval"]
        rows = [
            [metric, _shown(first[metric]), _shown(second[metric]), *_change(difference)]
            for metric, difference in differences.items()
            if metric != "per_class"
        ]
        classes = [
            [c, _shown(first["per_class"][c]), _shown(second["per_class"][c]), *_change(difference)]
            for c, difference in differences["per_class"].items()
        ]
        parts += [_table([name, *headers], rows), _table(["class", *headers], classes)]
    return "\n\n".join(parts)


def _table(headers: list[str], rows: list[list[str]]) -> str:
    return tabulate(rows, headers=headers, tablefmt="github", disable_numparse=True)


def _change(difference: dict[str, float | None] | None) -> tuple[str, str]:
    if difference is None:
        return "-", "-"
    value, low, high = (difference[name] for name in ("value", "low", "high"))
    return f"{value:+.2f}", "-" if low is None else f"{low:+.2f} to {high:+.2f}"


def _label(kind: str, scores: dict[str, Any]) -> str:
    return f"{kind} ({scores['protocol']})" if kind in ("bbox", "segm") else kind


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
