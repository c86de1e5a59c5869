"""The report's sections on what comes before the detectors: pretraining, data, conversion."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from charts import Series, line_chart
from drawing import draw_detections
from markup import figure, picture, section
from report_data import ReportData, mean
from wording import effective_rank, number, small


def pretraining(data: ReportData) -> str:
    """Loss, k-NN accuracy and the spectrum of the embedding."""
    run = data.pretraining
    loss = line_chart(
        [
            Series("each record", "faint", run.iterations, run.loss),
            Series("running mean", "pretrained", run.iterations, _running_mean(run.loss)),
        ],
        x_label="pretraining iteration",
        y_label="loss",
        description="Pretraining loss over iterations"
        + (f", from {run.loss[0]:.3g} to {run.loss[-1]:.3g}" if run.loss else ""),
        y_zero=False,
    )
    knn = line_chart(
        [
            Series("chance", "plain", run.knn_iterations, [run.chance] * len(run.knn_iterations)),
            Series("k-NN", "pretrained", run.knn_iterations, run.knn_top1, markers=True),
        ],
        x_label="pretraining iteration",
        y_label="k-NN accuracy, %",
        description="k-NN accuracy over pretraining iterations: "
        + ", ".join(number(v) for v in run.knn_top1),
    )
    before, after = _shares(data.spectrum_before), _shares(data.spectrum_after)
    ranks = effective_rank(data.spectrum_before), effective_rank(data.spectrum_after)
    spectrum = line_chart(
        [
            Series("random", "random", range(1, len(before) + 1), before),
            Series("pretrained", "pretrained", range(1, len(after) + 1), after),
        ],
        x_label="eigenvalue, largest first",
        y_label="share of the variance",
        description="Spectrum of the embedding before and after pretraining. "
        + _spectrum_caption(ranks, len(after)),
        log_y=True,
    )
    return section(
        "Pretraining",
        "No label is used here. k-NN asks whether images whose features are near each other show "
        "the same class; its first point is the network before any training.",
        '<div class="grid2">'
        + figure("Loss", loss, "Of CW-RGP, between views of the same image.")
        + figure("k-NN accuracy", knn, "On object-centred images that pretraining does not see.")
        + figure(
            "Spectrum of the embedding",
            spectrum,
            _spectrum_caption(ranks, len(data.spectrum_after)),
            "wide",
        )
        + "</div>",
    )


def _running_mean(values: Sequence[float], share: float = 0.05) -> list[float]:
    """Mean over a centred window of about ``share`` of all values."""
    half = max(1, round(len(values) * share / 2))
    return [mean(values[max(0, i - half) : i + half + 1]) for i in range(len(values))]


def _spectrum_caption(ranks: tuple[float, float], size: int) -> str:
    if not all(map(math.isfinite, ranks)):
        return ""
    return (
        f"Effective rank (exponential of the entropy): {ranks[0]:.0f} before, {ranks[1]:.0f} "
        f"after, of {size} eigenvalues. The smaller it is, the fewer directions carry the "
        "variance. A line ends where what follows is no more than rounding."
    )


def _shares(eigenvalues: Sequence[float]) -> list[float]:
    """Each eigenvalue's share of the sum, largest first; NaN where float32 cannot resolve it."""
    total, largest = math.fsum(eigenvalues), max(eigenvalues, default=0.0)
    return [
        v / total if v > 1e-7 * largest else math.nan for v in sorted(eigenvalues, reverse=True)
    ]


def pictures(data: ReportData) -> str:
    """What the data look like."""
    counts = "".join(f"<dt>{escape(k)}</dt><dd>{v:,}</dd>" for k, v in data.counts.items())
    plain = "".join(
        picture(image, f"Unlabelled image {i}") for i, image in enumerate(data.unlabelled, 1)
    )
    drawn = "".join(
        picture(draw_detections(image, objects, data.class_names, 2), f"Labelled scene {i}")
        for i, (image, objects) in enumerate(data.labelled, start=1)
    )
    return section(
        "The data",
        "Drawn by a program from a seed. A class is told mainly by its shape and its parts; "
        "colours, textures and light are random, apart from parts that are always dark or "
        "always light.",
        f'<div class="card"><dl class="facts">{counts}</dl></div>\n<div class="grid2">'
        + figure("Unlabelled, for pretraining", f'<div class="sheet">{plain}</div>')
        + figure("Labelled, for fine-tuning", f'<div class="sheet large">{drawn}</div>')
        + "</div>",
    )


def conversion(data: ReportData) -> str:
    """Whether the converted weights compute the same."""
    worst = max(data.conversion.values(), default=math.nan)
    allowed = small(data.conversion_tolerance)
    verdict = (
        f"within the {allowed} allowed."
        if worst <= data.conversion_tolerance
        else f"which is not within the {allowed} allowed: do not trust the fine-tuning above."
    )
    return section(
        "The conversion, checked",
        "The pretrained encoder and Detectron2’s own backbone, loaded with the converted "
        f"weights, see the same input, and their features ({escape(', '.join(data.conversion))}) "
        f"are compared. The largest relative difference is {small(worst)}, {verdict}",
        "",
    )
