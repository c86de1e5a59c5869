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
    options: dict[str, Any] = {"tablefmt": "github", "disable_numparse": True}
    return "\n\n".join(
        [
            tabulate(rows, headers=["in %", *metrics], **options),
            tabulate(classes, headers=["class", *names], **options),
        ]
    )


def _label(kind: str, scores: dict[str, Any]) -> str:
    return f"{kind} ({scores['protocol']})" if kind in ("bbox", "segm") else kind


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
