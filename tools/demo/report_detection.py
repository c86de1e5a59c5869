"""The report's sections on the detectors: average precision, and what they see."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from charts import Series, line_chart, strip_chart
from drawing import Detections, class_colour, count_found, draw_detections
from markup import figure, picture, section
from report_data import ReportData, Sample, compare, mean
from wording import number, plural, plus_minus, signed, verdict_word

METRICS = {
    "bbox/AP": "Box AP",
    "bbox/AP50": "Box AP50",
    "bbox/AP75": "Box AP75",
    "segm/AP": "Mask AP",
    "segm/AP50": "Mask AP50",
    "segm/AP75": "Mask AP75",
}
RANDOM, PRETRAINED = "Random weights", "Pretrained"


def results(data: ReportData) -> str:
    """Charts and tables of AP."""
    present = {
        key: label
        for key, label in METRICS.items()
        if any(key in run.metrics for run in (*data.random, *data.pretrained))
    }
    rows: list[tuple[str, str, Sequence[float]]] = []
    for key in ("bbox/AP", "segm/AP"):
        if key in present:
            ap, label = compare(data, key), present[key]
            rows += [(f"{label}, random", "random", ap.random)]
            rows += [(f"{label}, pretrained", "pretrained", ap.pretrained)]
    strip = strip_chart(
        rows,
        x_label="AP in percent",
        description="AP of every seed: "
        + "; ".join(f"{label} {', '.join(map(number, values))}" for label, _, values in rows),
    )
    keys = (
        f'<span class="key random">{RANDOM}</span> and '
        f'<span class="key pretrained">{PRETRAINED}</span>'
    )
    lead = (
        f"{keys}: the same detector, the same labelled images, the same schedule; only the "
        "backbone’s starting weights differ."
    )
    figures = figure(
        "Every seed",
        strip,
        "Dots are seeds, bars their means. The spread that a margin has to exceed is the larger of "
        "both arms’ ranges.",
    ) + figure(
        "Box AP while fine-tuning",
        _ap_curves(data),
        "Mean over seeds; the band reaches from the lowest to the highest seed.",
    )
    tables = f'<div class="card">{_metric_table(data, present)}</div>\n'
    tables += f'<div class="card">{_seed_table(data, present)}</div>'
    return section(
        "Average precision",
        lead,
        f'<div class="grid2">{figures}</div>\n<div class="grid2 uneven">{tables}</div>',
    )


def _ap_curves(data: ReportData) -> str:
    series = []
    for label, style, runs in (
        (RANDOM, "random", data.random),
        (PRETRAINED, "pretrained", data.pretrained),
    ):
        at: dict[int, list[float]] = {}
        for run in runs:
            # A resumed run may have measured an iteration twice: the last one counts.
            for iteration, value in dict(zip(run.iterations, run.box_ap, strict=True)).items():
                at.setdefault(iteration, []).append(value)
        # A mean over fewer seeds than the other points have would not be comparable with them.
        points = [i for i in sorted(at) if len(at[i]) == len(runs)]
        series.append(
            Series(
                label,
                style,
                points,
                [mean(at[i]) for i in points],
                [min(at[i]) for i in points],
                [max(at[i]) for i in points],
                markers=True,
            )
        )
    ends = [f"{s.label} ends at {number(s.y[-1])}" for s in series if s.y]
    return line_chart(
        series,
        x_label="fine-tuning iteration",
        y_label="box AP, %",
        description="Box AP over fine-tuning iterations. " + "; ".join(ends),
    )


def _metric_table(data: ReportData, present: dict[str, str]) -> str:
    body = ""
    for key, label in present.items():
        ap = compare(data, key)
        word, style = verdict_word(ap)
        body += (
            f"<tr><th scope='row'>{label}</th><td>{plus_minus(ap.random)}</td>"
            f"<td>{plus_minus(ap.pretrained)}</td><td>{signed(ap.margin)}</td>"
            f"<td>{number(ap.spread)}</td><td class='{style}'>{word}</td></tr>"
        )
    return (
        "<table><caption>Percent, mean ± standard deviation over seeds. Beyond the spread: is the "
        "margin larger?</caption><thead><tr><td></td><th scope='col'>Random</th>"
        "<th scope='col'>Pre­trained</th><th scope='col'>Margin</th><th scope='col'>Spread</th>"
        f"<th scope='col'>Beyond</th></tr></thead><tbody>{body}</tbody></table>"
    )


def _seed_table(data: ReportData, present: dict[str, str]) -> str:
    head = "".join(
        f"<th scope='col'>{label.replace('AP', '<br>AP', 1)}</th>" for label in present.values()
    )
    body = ""
    for label, style, runs in (
        (RANDOM, "random", data.random),
        (PRETRAINED, "pretrained", data.pretrained),
    ):
        body += (
            f"<tr class='arm'><th colspan='{len(present) + 1}' scope='rowgroup'>"
            f"<span class='key {style}'>{label}</span></th></tr>"
        )
        for run in runs:
            cells = "".join(f"<td>{number(run.metrics.get(key, math.nan))}</td>" for key in present)
            body += f"<tr><th scope='row'>seed {run.seed}</th>{cells}</tr>"
    return (
        "<table><caption>Percent, every run.</caption><thead><tr><td></td>"
        f"{head}</tr></thead><tbody>{body}</tbody></table>"
    )


def samples(data: ReportData) -> str:
    """Truth and predictions, drawn on images."""
    legend = "".join(
        f'<li><i style="background:{class_colour(k)}"></i>{escape(name)}</li>'
        for k, name in enumerate(data.class_names)
    )
    body = "".join(
        _sample(sample, index, data) for index, sample in enumerate(data.samples, start=1)
    )
    lead = (
        f"Evaluation images, with every detection that scores {100 * data.score_threshold:.0f} "
        "or more out of 100. Found means: the right class, and a box whose intersection over "
        "union with the true one is at least one half. Both detectors are those of the first "
        "seed."
    )
    if not data.samples:
        body = '<p class="empty">No sample predictions were recorded.</p>'
    return section(
        "What the detectors see",
        lead,
        f'<ul class="legend">{legend}</ul>\n<div class="samples">{body}</div>',
    )


def _sample(sample: Sample, index: int, data: ReportData) -> str:
    total = len(sample.truth.classes)
    cells = f'<div class="truth"><span><b>Truth</b><br>{plural(total, "object")}</span>'
    cells += f"{_drawn(sample, sample.truth, f'Image {index}, the true objects', data)}</div>"
    for label, style, objects in (
        (RANDOM, "random", sample.random),
        (PRETRAINED, "pretrained", sample.pretrained),
    ):
        kept = objects.above(data.score_threshold)
        found = count_found(sample.truth, kept)
        wrong = len(kept.classes) - found
        note = f"{found} of {total} found" + (f", {wrong} wrong" if wrong else "")
        alt = f"Image {index}, detections of the {label.lower()} detector: {note}"
        cells += f'<div><span><b class="key {style}">{label}</b><br>{note}</span>'
        cells += f"{_drawn(sample, kept, alt, data)}</div>"
    return f'<div class="card sample">{cells}</div>\n'


def _drawn(sample: Sample, objects: Detections, alt: str, data: ReportData) -> str:
    return picture(draw_detections(sample.image, objects, data.class_names), alt)
