"""The files that an experiment ends in: results.json, its figures, and the page.

The wording is in ``experiment.html.j2``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup

from cwrgp.analysis.figures import figures
from cwrgp.analysis.results import RESULTS
from cwrgp.file_io.atomic import write_text
from cwrgp.report import page, text

_TEMPLATE = Path(__file__).with_name("experiment.html.j2")
TITLES = {
    "whitening": "What whitening does to an embedding",
    "penalty": "The covariance penalty",
    "batch-size": "Small batches",
    "groups": "Groups of channels",
}
# Columns of the table: name of a value -> heading, and what it is multiplied by.
_COLUMNS = {
    "knn": ("k-NN, %", 1),
    "monitor/target_volatility": ("targets move, %", 100),
    "embedding/effective_rank": ("effective rank", 1),
    "embedding/normalized_rank": ("numerical rank, %", 100),
    "embedding/normalized_stable_rank": ("stable rank, %", 100),
    "embedding/negative_cosine": ("negatives", 1),
    "encoder/effective_rank": ("encoder: effective rank", 1),
}


def write_outputs(folder: Path, results: Mapping[str, Any], command: str) -> None:
    """Writes results.json, figures/NAME.svg and .png, and report.html."""
    write_text(folder / RESULTS, json.dumps(results, indent=1))
    html = page.render(
        _TEMPLATE,
        results=results,
        title=TITLES[results["experiment"]],
        figures=figures(results, folder / "figures"),
        head=["", *(name for key, (name, _) in _COLUMNS.items() if _used(results, key))],
        rows=[_row(arm, results) for arm in results["arms"]],
        command=command,
    )
    page.write_page(folder / "report.html", html)


def _used(results: Mapping[str, Any], key: str) -> bool:
    return any(key in arm["values"] for arm in results["arms"])


def _row(arm: Mapping[str, Any], results: Mapping[str, Any]) -> list[str | Markup]:
    name = arm["series"] if arm["x"] is None else f"{arm['series']}, {arm['x']:g}"
    cells = [
        _cell(arm["values"].get(key), scale)
        for key, (_, scale) in _COLUMNS.items()
        if _used(results, key)
    ]
    return [name, *cells]


def _cell(value: Mapping[str, Any] | None, scale: float) -> str | Markup:
    """A mean, and half the width of its 95 % interval."""
    if value is None or value["mean"] is None:
        return text.DASH
    mean = scale * value["mean"]
    digits = max(0, 2 - math.floor(math.log10(abs(mean)))) if mean else 0  # three significant ones
    shown = f"{mean:.{digits}f}".replace("-", "−")
    if value["high"] is None:
        return shown
    half = scale * (value["high"] - value["mean"])
    return Markup("{} <small>± {}</small>").format(shown, f"{half:.{digits}f}")
