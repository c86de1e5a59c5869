"""The demo's page: what it shows, and what may be concluded from it.

The wording is in ``report.html.j2``; what it claims follows from :class:`Comparison` alone. Metrics
have Detectron2's names ("bbox/AP", "segm/AP50", ...) and are in percent.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image
from torchvision.ops import box_iou

from cwrgp.evaluation.spectrum import effective_rank
from cwrgp.report import figures, page, text
from cwrgp.report.figures import Series
from d2_transfer.visualize import class_colour, draw_detections

METRICS = {"bbox/AP": "Box AP", "bbox/AP50": "Box AP50", "bbox/AP75": "Box AP75"}
METRICS |= {"segm/AP": "Mask AP", "segm/AP50": "Mask AP50", "segm/AP75": "Mask AP75"}
PRETRAINED, RANDOM = 0, 1  # their styles on every chart


@dataclass(frozen=True)
class Detections:
    """Objects in one image: the truth (without scores), or what a detector found.

    Attributes:
        boxes: (n, 4) XYXY in pixels.
        classes: n class indices.
        scores: n confidences in 0..1.
        masks: (n, H, W), bool.
    """

    boxes: NDArray[np.floating | np.integer]
    classes: Sequence[int]
    scores: Sequence[float] | None = None
    masks: NDArray[np.bool_] | None = None

    def above(self, threshold: float) -> Detections:
        """Those with at least this score."""
        scores = self.scores or []
        kept = [i for i, score in enumerate(scores) if score >= threshold]
        masks = None if self.masks is None else self.masks[kept]
        classes, scores = [self.classes[i] for i in kept], [scores[i] for i in kept]
        return Detections(self.boxes[kept], classes, scores, masks)


@dataclass(frozen=True)
class Run:
    """One fine-tuning run: final metrics, and box AP at some iterations, the last included."""

    seed: int
    metrics: dict[str, float]
    iterations: Sequence[int] = ()
    box_ap: Sequence[float] = ()


@dataclass(frozen=True)
class Pretraining:
    """Curves of the pretraining run; k-NN accuracies in percent, first at iteration 0."""

    iterations: Sequence[int]
    loss: Sequence[float]
    knn_iterations: Sequence[int]
    knn_top1: Sequence[float]
    chance: float


@dataclass(frozen=True)
class Sample:
    """One evaluation image (H, W, 3) uint8 with its truth and both arms' detections."""

    image: NDArray[np.uint8]
    truth: Detections
    random: Detections
    pretrained: Detections


@dataclass(frozen=True)
class Command:
    """A command that was run: what for, the line to type, how long it took (None: not known)."""

    purpose: str
    line: str
    seconds: float | None = None


@dataclass(frozen=True)
class ReportData:
    """Everything on the page.

    Attributes:
        random, pretrained: fine-tuning runs, one per seed.
        pretraining: curves.
        spectrum_before, spectrum_after: eigenvalues of the embedding's covariance.
        conversion: largest relative feature difference, by what was compared.
        conversion_tolerance: what the conversion allows.
        samples: images with predictions.
        class_names: in the order of the class indices.
        unlabelled: some of the images that pretraining sees.
        labelled: some of the fine-tuning images with their truth.
        counts: sizes of the data set, by what they count.
        commands: in the order in which they ran.
        environment: versions and hardware.
        score_threshold: detections below it are not drawn and not counted.
    """

    random: Sequence[Run]
    pretrained: Sequence[Run]
    pretraining: Pretraining
    spectrum_before: Sequence[float]
    spectrum_after: Sequence[float]
    conversion: dict[str, float]
    conversion_tolerance: float
    samples: Sequence[Sample]
    class_names: Sequence[str]
    unlabelled: Sequence[Image.Image]
    labelled: Sequence[tuple[NDArray[np.uint8], Detections]]
    counts: dict[str, int]
    commands: Sequence[Command]
    environment: dict[str, str]
    score_threshold: float = 0.3


@dataclass(frozen=True)
class Comparison:
    """Both arms in one metric, over seeds, in percent."""

    random: tuple[float, ...]
    pretrained: tuple[float, ...]

    @property
    def margin(self) -> float:
        """Mean of the pretrained arm minus mean of the random arm; NaN if any value is missing."""
        return mean(self.pretrained) - mean(self.random)

    @property
    def spread(self) -> float:
        """The larger of the two arms' ranges (largest minus smallest over seeds)."""
        if not self.random or not self.pretrained:
            return math.nan
        return max(max(arm) - min(arm) for arm in (self.random, self.pretrained))

    @property
    def verdict(self) -> str:
        """ "wins", "loses" or "undecided": is the margin larger than the spread?; "unknown" without
        two seeds or with a missing value, because then there is no spread to compare with."""
        values = (*self.random, *self.pretrained)
        if min(len(self.random), len(self.pretrained)) < 2 or not all(map(math.isfinite, values)):
            return "unknown"
        if abs(self.margin) <= self.spread:
            return "undecided"
        return "wins" if self.margin > 0 else "loses"


def compare(data: ReportData, metric: str) -> Comparison:
    """Gathers one metric; a run that lacks it counts as NaN, never as absent."""
    arms = [
        tuple(run.metrics.get(metric, math.nan) for run in runs)
        for runs in (data.random, data.pretrained)
    ]
    return Comparison(*arms)


def mean(values: Sequence[float]) -> float:
    """Arithmetic mean; NaN of nothing."""
    return math.fsum(values) / len(values) if values else math.nan


def spread_text(values: Sequence[float]) -> Markup:
    """Mean ± sample standard deviation."""
    known = len(values) > 1 and all(map(math.isfinite, values))
    return text.plus_minus(mean(values), statistics.stdev(values) if known else math.nan)


def count_found(truth: Detections, found: Detections, iou: float = 0.5) -> int:
    """How many true objects have a detection of their class with this box IoU, each used once."""
    overlaps = box_iou(*(torch.as_tensor(d.boxes, dtype=torch.float64) for d in (truth, found)))
    if not overlaps.numel():
        return 0
    overlaps *= torch.tensor(truth.classes)[:, None] == torch.tensor(found.classes)
    hits = 0
    for row in overlaps:
        best = row.argmax()
        if row[best] >= iou:
            hits += 1
            overlaps[:, best] = 0
    return hits


def render(data: ReportData) -> str:
    """The page as a string."""
    present = {
        key: label
        for key, label in METRICS.items()
        if any(key in run.metrics for run in (*data.random, *data.pretrained))
    }
    arms = (("Random weights", RANDOM, data.random), ("Pretrained", PRETRAINED, data.pretrained))
    words = {"wins": ("yes", True), "undecided": ("no", False), "loses": ("worse", False)}
    rows, groups = [], []
    for key, label in present.items():
        ap = compare(data, key)
        word = page.verdict(*words.get(ap.verdict, ("?", False)))
        cells = (spread_text(ap.random), spread_text(ap.pretrained), text.signed(ap.margin))
        rows.append((label, *cells, text.number(ap.spread), word))
    for label, style, runs in arms:
        seeds = [
            (f"seed {run.seed}", *(text.number(run.metrics.get(k, math.nan)) for k in present))
            for run in runs
        ]
        groups.append((page.key(label, style), seeds))
    mask = compare(data, "segm/AP")
    spectra = (data.spectrum_before, data.spectrum_after)
    ranks = [effective_rank(torch.tensor(s)).item() if s else math.nan for s in spectra]
    return page.render(
        Path(__file__).with_name("report.html.j2"),
        data=data,
        box=compare(data, "bbox/AP"),
        mask=mask,
        mask_known=any(map(math.isfinite, (*mask.random, *mask.pretrained))),
        knn_top1=data.pretraining.knn_top1,
        worst=max(data.conversion.values(), default=math.nan),
        seconds=sum(c.seconds or 0 for c in data.commands) or math.nan,
        rows=rows,
        present=present,
        groups=groups,
        strip=_strip(data, present),
        ap_curves=_ap_curves(data),
        loss=_loss(data.pretraining),
        knn=_knn(data.pretraining),
        spectrum=_spectrum(data, ranks),
        ranks=ranks,
        colours=[(class_colour(k), name) for k, name in enumerate(data.class_names)],
        samples=[_sample(number, sample, data) for number, sample in enumerate(data.samples, 1)],
        unlabelled=[(image, f"Unlabelled image {i}") for i, image in enumerate(data.unlabelled, 1)],
        labelled=[
            (_drawn(image, objects, data), f"Labelled scene {i}")
            for i, (image, objects) in enumerate(data.labelled, 1)
        ],
        mean=mean,
        spread_text=spread_text,
        isfinite=math.isfinite,
    )


def _strip(data: ReportData, present: dict[str, str]) -> Markup:
    rows = []
    for key in [key for key in ("bbox/AP", "segm/AP") if key in present]:
        ap = compare(data, key)
        rows.append((f"{present[key]}, random", RANDOM, ap.random))
        rows.append((f"{present[key]}, pretrained", PRETRAINED, ap.pretrained))
    values = "; ".join(f"{label} {', '.join(map(text.number, ap))}" for label, _, ap in rows)
    return figures.strip_chart(rows, x_label="AP in percent", alt=f"AP of every seed: {values}")


def _ap_curves(data: ReportData) -> Markup:
    series = []
    for label, style, runs in (
        ("random", RANDOM, data.random),
        ("pretrained", PRETRAINED, data.pretrained),
    ):
        # A resumed run may have measured an iteration twice: the last one counts.
        curves = [dict(zip(run.iterations, run.box_ap, strict=True)) for run in runs]
        # A mean over fewer seeds than the other points have would not be comparable with them.
        x = sorted(set.intersection(*map(set, curves))) if curves else []
        at = [[curve[i] for curve in curves] for i in x]
        low, high = [min(values) for values in at], [max(values) for values in at]
        series.append(Series(label, x, [mean(v) for v in at], style, low, high, markers=True))
    ends = "; ".join(f"{s.label} ends at {text.number(s.y[-1])}" for s in series if s.y)
    return figures.line_chart(
        series,
        x_label="fine-tuning iteration",
        y_label="box AP, %",
        alt=f"Box AP over fine-tuning iterations. {ends}",
    )


def _loss(run: Pretraining) -> Markup:
    half = max(1, round(len(run.loss) * 0.025))  # of a window of a twentieth of all records
    smooth = [mean(run.loss[max(0, i - half) : i + half + 1]) for i in range(len(run.loss))]
    ends = f", from {run.loss[0]:.3g} to {run.loss[-1]:.3g}" if run.loss else ""
    return figures.line_chart(
        [
            Series("each record", run.iterations, run.loss, PRETRAINED, faint=True),
            Series("running mean", run.iterations, smooth, PRETRAINED),
        ],
        x_label="pretraining iteration",
        y_label="loss",
        alt=f"Pretraining loss over iterations{ends}",
        y_zero=False,
    )


def _knn(run: Pretraining) -> Markup:
    x = run.knn_iterations
    return figures.line_chart(
        [
            Series("chance", x, [run.chance] * len(x)),
            Series("k-NN", x, run.knn_top1, PRETRAINED, markers=True),
        ],
        x_label="pretraining iteration",
        y_label="k-NN accuracy, %",
        alt=f"k-NN accuracy over pretraining: {', '.join(map(text.number, run.knn_top1))}",
    )


def _spectrum(data: ReportData, ranks: Sequence[float]) -> Markup:
    return figures.spectrum_chart(
        [
            ("random", RANDOM, data.spectrum_before),
            ("pretrained", PRETRAINED, data.spectrum_after),
        ],
        x_label="eigenvalue, largest first",
        y_label="share of the variance",
        alt="Spectrum of the embedding before and after pretraining; effective ranks "
        + " and ".join(map(text.number, ranks)),
    )


def _drawn(image: NDArray[np.uint8], objects: Detections, data: ReportData) -> NDArray[np.uint8]:
    return draw_detections(
        image,
        objects.boxes,
        objects.classes,
        data.class_names,
        scores=objects.scores,
        masks=objects.masks,
        scale=2,
    )


def _sample(
    number: int, sample: Sample, data: ReportData
) -> list[tuple[Markup, str, NDArray[np.uint8], str]]:
    """The truth and both arms: heading, note, drawing, alternative text."""
    total = len(sample.truth.classes)
    drawn = _drawn(sample.image, sample.truth, data)
    alt = f"Image {number}, the true objects"
    cells = [(Markup("<b>Truth</b>"), text.plural(total, "object"), drawn, alt)]
    for label, style, objects in (
        ("Random weights", RANDOM, sample.random),
        ("Pretrained", PRETRAINED, sample.pretrained),
    ):
        kept = objects.above(data.score_threshold)
        hits = count_found(sample.truth, kept)
        wrong = len(kept.classes) - hits
        note = f"{hits} of {total} found" + (f", {wrong} wrong" if wrong else "")
        alt = f"Image {number}, detections of the {label.lower()} detector: {note}"
        cells.append((page.key(label, style), note, _drawn(sample.image, kept, data), alt))
    return cells
