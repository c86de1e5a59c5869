"""The page of the trials: verdicts, every seed, curves, classes, mistakes and pictures.

The wording is in ``report.html.j2``.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from markupsafe import Markup

from cwrgp.report import page, text
from cwrgp.report.figures import Series, line_chart, strip_chart
from cwrgp.statistics import TrialDifference
from d2_transfer.trials.curves import Curve, with_band
from d2_transfer.trials.errors import KINDS as MISTAKES
from d2_transfer.trials.examples import Example
from d2_transfer.trials.results import KINDS, Comparison, Trial

_TEMPLATE = Path(__file__).with_name("report.html.j2")
_COLUMNS = ("AP", "AP50", "AP75", "APs", "APm", "APl")
_CLASSES_SHOWN = 30


@dataclass(frozen=True)
class ReportData:
    """What the page shows.

    Attributes:
        results: the content of ``results.json``.
        trials: of each arm; the first is drawn first.
        comparisons: with the reference.
        ap: of each arm, box AP over iterations of each seed.
        loss: likewise, the sum of the losses.
        published: rows of the protocol: method, and metric ("bbox/AP") -> text.
        fractions: percent of the training images -> trials of each arm.
        examples: of the first comparison: gains, losses; empty where there are none.
        command: that goes on with the trials.
    """

    results: Mapping[str, Any]
    trials: Mapping[str, Sequence[Trial]]
    comparisons: Sequence[Comparison]
    ap: Mapping[str, Sequence[Curve]]
    loss: Mapping[str, Sequence[Curve]]
    published: Sequence[tuple[str, Mapping[str, str]]]
    fractions: Mapping[float, Mapping[str, Sequence[Trial]]]
    examples: tuple[Sequence[Example], Sequence[Example]]
    command: str


def build_page(data: ReportData, charts: Mapping[str, Markup]) -> str:
    """The page, as HTML that loads nothing, with what `draw_charts` gives."""
    tables = [table for kind in KINDS if (table := _table(data, kind))]
    metrics = [metric for table in tables for metric in table.metrics]
    return page.render(
        _TEMPLATE,
        data=data,
        results=data.results,
        styles=_styles(data),
        charts=charts,
        tables=tables,
        changes=[(c.arm, c.reference, _changes(c, metrics)) for c in data.comparisons],
        mistakes=_mistakes(data),
        classes=[(c.arm, c.reference, _classes(c)) for c in data.comparisons if c.changes],
        examples=[
            (word, [_example(example, data) for example in found])
            for word, found in zip(("gains", "losses"), data.examples, strict=True)
        ],
        config=[
            [change["key"], *map(_config_value, (change["protocol"], change["here"]))]
            for change in data.results["config"]
        ],
        hours=data.results["hours"],
        fractions=[
            [f"{percent:g}\u00a0%", *(_box_ap(of_arm) for of_arm in trials.values())]
            for percent, trials in data.fractions.items()
        ],
        sweep=_sweep(data),
    )


def draw_charts(data: ReportData, folder: Path) -> dict[str, Markup]:
    """The charts of the page by name; a paragraph where there is nothing to draw.

    Args:
        data: what they show.
        folder: gets each as an SVG file.
    """
    styles = _styles(data)
    charts = {
        "every_seed": partial(_strip, data, styles),
        "ap_over_iterations": partial(_curves, data.ap, styles, "box AP, %", markers=True),
        "loss_over_iterations": partial(
            _curves, data.loss, styles, "sum of the losses", markers=False
        ),
        "precision_over_recall": partial(_precision, data, styles),
        "ap_over_fractions": partial(_fractions, data, styles),
    }
    return {name: draw(files=[folder / f"{name}.svg"]) for name, draw in charts.items()}


def _styles(data: ReportData) -> dict[str, int]:
    return {name: number for number, name in enumerate(data.trials)}


class _Table(NamedTuple):
    """Metrics of boxes or of masks: what they are called, and rows of cells."""

    title: str
    metrics: list[str]
    heads: list[str]
    means: list[list[Any]]
    published: list[list[Any]]
    every: list[tuple[str, list[Any]]]


def _table(data: ReportData, kind: str) -> _Table | None:
    """None: nothing of the kind was scored."""
    names = [
        name
        for name in _COLUMNS
        if any(
            math.isfinite(trial.values.get(f"{kind}/{name}", math.nan))
            for of_arm in data.trials.values()
            for trial in of_arm
        )
    ]
    if not names:
        return None
    metrics = [f"{kind}/{name}" for name in names]
    return _Table(
        title=KINDS[kind].removesuffix(" AP").capitalize(),
        metrics=metrics,
        heads=names,
        means=[_means(name, of_arm, metrics) for name, of_arm in data.trials.items()],
        published=[
            [method, "", *(_published(known.get(metric, text.DASH)) for metric in metrics)]
            for method, known in data.published
            if not known.keys().isdisjoint(metrics)
        ],
        every=[_every(name, of_arm, metrics) for name, of_arm in data.trials.items()],
    )


def _published(value: str) -> Markup:
    mean, sign, spread = value.partition(" ± ")
    return Markup("{} <small>± {}</small>").format(mean, spread) if sign else Markup.escape(mean)


def _config_value(value: str | None) -> Markup:
    return Markup('<code class="long">{}</code>').format(text.DASH if value is None else value)


def _head(metric: str) -> str:
    kind, _, name = metric.partition("/")
    return f"{'box' if kind == 'bbox' else 'mask'} {name}"


def _means(name: str, trials: Sequence[Trial], metrics: Sequence[str]) -> list[Any]:
    return [name, len(trials), *(_mean([t.values[m] for t in trials]) for m in metrics)]


def _mean(values: Sequence[float]) -> str:
    if not values or not all(map(math.isfinite, values)):
        return text.DASH
    deviation = statistics.stdev(values) if len(values) > 1 else math.nan
    return text.plus_minus(statistics.fmean(values), deviation)


def _every(name: str, trials: Sequence[Trial], metrics: Sequence[str]) -> tuple[str, list[Any]]:
    return name, [
        [f"seed {trial.seed}", *(text.number(trial.values[m]) for m in metrics)] for trial in trials
    ]


def _changes(comparison: Comparison, metrics: Sequence[str]) -> list[list[Any]]:
    joint = {f"{kind}/AP" for kind in KINDS}
    return [
        [_head(metric), *_change(comparison.changes[metric]), "yes" if metric in joint else "no"]
        for metric in metrics
        if metric in comparison.changes
    ]


def _change(change: TrialDifference) -> tuple[str, str, str]:
    low, value, high = change.interval
    if not change.error:
        return text.signed(value), text.DASH, "not decided"
    decided = low > 0 or high < 0
    word = ("better" if value > 0 else "worse") if decided else "not decided"
    shown = page.verdict(word, value > 0) if decided else word
    return text.signed(value), f"{text.signed(low)} to {text.signed(high)}", shown


def _classes(comparison: Comparison) -> list[list[Any]]:
    """Box AP of each class, the largest gain first; of many, those that changed most."""
    prefix = "bbox/AP-"
    named = [(n.removeprefix(prefix), c) for n, c in comparison.changes.items() if prefix in n]
    largest = sorted(named, key=lambda item: -abs(item[1].interval.value))[:_CLASSES_SHOWN]
    ordered = sorted(largest, key=lambda item: -item[1].interval.value)
    return [[name, *_change(change)] for name, change in ordered]


def _strip(data: ReportData, styles: Mapping[str, int], *, files: Sequence[Path]) -> Markup:
    rows = [
        (f"{label}, {name}", styles[name], [trial.values[f"{kind}/AP"] for trial in trials])
        for kind, label in KINDS.items()
        for name, trials in data.trials.items()
        if trials and f"{kind}/AP" in trials[0].values
    ]
    values = "; ".join(f"{label} {', '.join(map(text.number, ap))}" for label, _, ap in rows)
    return strip_chart(
        rows,
        x_label="AP in percent",
        alt=f"AP of every seed: {values}",
        x_zero=False,
        files=files,
    )


def _curves(
    curves: Mapping[str, Sequence[Curve]],
    styles: Mapping[str, int],
    label: str,
    *,
    markers: bool,
    files: Sequence[Path],
) -> Markup:
    series = [
        with_band(name, styles[name], of_arm, markers=markers) for name, of_arm in curves.items()
    ]
    ends = "; ".join(f"{s.label} ends at {s.y[-1]:.3g}" for s in series if s.y)
    alt = f"{label} over the iterations of the fine-tuning. {ends}"
    return line_chart(
        series,
        x_label="fine-tuning iteration",
        y_label=label,
        alt=alt,
        y_zero=markers,
        files=files,
    )


def _fractions(data: ReportData, styles: Mapping[str, int], *, files: Sequence[Path]) -> Markup:
    """Nothing where there is one fraction."""
    series = []
    for name, style in styles.items() if len(data.fractions) > 1 else ():
        aps = {
            percent: {trial.seed: trial.values["bbox/AP"] for trial in trials[name]}
            for percent, trials in data.fractions.items()
        }
        seeds = sorted(set.intersection(*(set(of_seeds) for of_seeds in aps.values())))
        curves = [{percent: aps[percent][seed] for percent in aps} for seed in seeds]
        if curves:
            series.append(with_band(name, style, curves, markers=True))
    ends = "; ".join(
        f"{s.label} {text.number(s.y[0])} with the fewest images, {text.number(s.y[-1])} with most"
        for s in series
    )
    return line_chart(
        series,
        x_label="training images, %",
        y_label="box AP, %",
        alt=f"Box AP over fractions of the training images: {ends}",
        log_x=True,
        files=files,
    )


def _box_ap(trials: Sequence[Trial]) -> str:
    return _mean([trial.values["bbox/AP"] for trial in trials])


def _sweep(data: ReportData) -> list[list[Any]]:
    """A row for each arm: AP of each rate, the chosen one."""
    return [
        [
            name,
            *(text.DASH if ap is None else text.number(ap) for ap in of_arm["values"].values()),
            text.DASH if of_arm["chosen"] is None else f"{of_arm['chosen']:g}",
        ]
        for name, of_arm in data.results["sweep"].items()
    ]


def _precision(data: ReportData, styles: Mapping[str, int], *, files: Sequence[Path]) -> Markup:
    recall = np.linspace(0, 100, 101).tolist()
    series = []
    for name, trials in data.trials.items():
        found = [100 * t.precision["bbox"] for t in trials if "bbox" in t.precision]
        if found:
            values = np.stack(found)
            series.append(
                Series(
                    name,
                    recall,
                    values.mean(axis=0).tolist(),
                    styles[name],
                    values.min(axis=0).tolist(),
                    values.max(axis=0).tolist(),
                )
            )
    means = "; ".join(f"{s.label} {text.number(float(np.mean(s.y)))} on average" for s in series)
    alt = f"Precision over recall at an IoU of 0.5: {means}"
    return line_chart(series, x_label="recall, %", y_label="precision, %", alt=alt, files=files)


def _mistakes(data: ReportData) -> list[list[str]]:
    return [
        [what, *(_mean([t.errors.get(kind, math.nan) for t in of]) for of in data.trials.values())]
        for kind, what in MISTAKES.items()
    ]


def _example(example: Example, data: ReportData) -> list[tuple[str, str, np.ndarray, str]]:
    comparison = data.comparisons[0]
    words = ("truth", comparison.reference, comparison.arm)
    notes = ("", *(f"F1 {score:.2f}" for score in example.scores))
    return [
        (word, note, picture, f"{example.name}, {word}{': ' if note else ''}{note}")
        for word, note, picture in zip(words, notes, example.pictures, strict=True)
    ]
