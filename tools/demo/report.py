"""The demo's page: what it shows, and what may be concluded from it.

The wording is in ``report.html.j2``; what it claims follows from :class:`Comparison` alone. Metrics
have Detectron2's names ("bbox/AP", "segm/AP50", ...) and are in percent.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image
from torchvision.ops import box_iou

from cwrgp.report import page, text
from cwrgp.report.figures import Series, line_chart, spectrum_chart, strip_chart
from cwrgp.spectrum import effective_rank
from d2_transfer.visualize import class_colour, draw_detections

METRICS = {"bbox/AP": "Box AP", "bbox/AP50": "Box AP50", "bbox/AP75": "Box AP75"}
METRICS |= {"segm/AP": "Mask AP", "segm/AP50": "Mask AP50", "segm/AP75": "Mask AP75"}
PRETRAINED, RANDOM = 0, 1  # their styles on every chart
_ARMS = (("Random weights", RANDOM), ("Pretrained", PRETRAINED))  # labels in the text
_SERIES = (("random", RANDOM), ("pretrained", PRETRAINED))  # labels in the charts
_ITERATION = "pretraining iteration"


class Detections(NamedTuple):
    """Objects in one image: the truth (without scores), or what a detector found."""

    boxes: NDArray[np.floating | np.integer]  # (n, 4) XYXY in pixels
    classes: Sequence[int]  # n indices
    scores: Sequence[float] | None = None  # n confidences in 0..1
    masks: NDArray[np.bool_] | None = None  # (n, H, W)

    def above(self, threshold: float) -> Detections:
        """Those with at least this score."""
        scores = self.scores or []
        kept = [i for i, score in enumerate(scores) if score >= threshold]
        masks = None if self.masks is None else self.masks[kept]
        classes, scores = [self.classes[i] for i in kept], [scores[i] for i in kept]
        return Detections(self.boxes[kept], classes, scores, masks)


class Curve(NamedTuple):
    """One metric of a run."""

    iterations: Sequence[int] = ()
    values: Sequence[float] = ()


class Run(NamedTuple):
    """One fine-tuning run: final metrics, and box AP on the way, the end included."""

    seed: int
    metrics: dict[str, float]
    box_ap: Curve = Curve()


class Sample(NamedTuple):
    """One evaluation image (H, W, 3) uint8 with its truth and both arms' detections."""

    image: NDArray[np.uint8]
    truth: Detections
    random: Detections
    pretrained: Detections


class Command(NamedTuple):
    """A command that was run: what for, the line to type, how long it took (None: not known)."""

    purpose: str
    line: str
    seconds: float | None = None


class ReportData(NamedTuple):
    """Everything on the page."""

    random: Sequence[Run]  # fine-tuning, one per seed
    pretrained: Sequence[Run]
    loss: Curve  # of pretraining
    knn: Curve  # accuracy in percent during pretraining, first at iteration 0
    chance: float  # accuracy of guessing, in percent
    spectrum_before: Sequence[float]  # eigenvalues of the embedding's covariance
    spectrum_after: Sequence[float]
    conversion: dict[str, float]  # largest relative feature difference, by what was compared
    conversion_tolerance: float
    samples: Sequence[Sample]
    class_names: Sequence[str]  # in the order of the class indices
    unlabelled: Sequence[Image.Image]  # some of the images that pretraining sees
    labelled: Sequence[tuple[NDArray[np.uint8], Detections]]  # some of those for fine-tuning
    counts: dict[str, int]  # sizes of the data set, by what they count
    commands: Sequence[Command]  # in the order in which they ran
    environment: dict[str, str]  # versions and hardware
    score_threshold: float = 0.3  # detections below it are neither drawn nor counted

    def compare(self, metric: str) -> Comparison:
        """Gathers one metric; a run that lacks it counts as NaN, never as absent."""
        arms = (
            [r.metrics.get(metric, math.nan) for r in a] for a in (self.random, self.pretrained)
        )
        return Comparison(*arms)


class Comparison(NamedTuple):
    """Both arms in one metric, over seeds, in percent."""

    random: Sequence[float]
    pretrained: Sequence[float]

    @property
    def margin(self) -> float:
        """Mean of the pretrained arm minus mean of the random arm; NaN if any value is missing."""
        return mean(self.pretrained) - mean(self.random)

    @property
    def spread(self) -> float:
        """The larger of the two arms' ranges (largest minus smallest over seeds)."""
        return max(max(arm) - min(arm) for arm in self) if all(self) else math.nan

    @property
    def verdict(self) -> str:
        """ "wins", "loses" or "undecided": is the margin larger than the spread?; "unknown" without
        two seeds or with a missing value, because then there is no spread to compare with."""
        if min(map(len, self)) < 2 or not all(math.isfinite(v) for arm in self for v in arm):
            return "unknown"
        if abs(self.margin) <= self.spread:
            return "undecided"
        return "wins" if self.margin > 0 else "loses"


def mean(values: Sequence[float]) -> float:
    """Arithmetic mean; NaN of nothing."""
    return statistics.fmean(values) if values else math.nan


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
    arms = zip(_ARMS, (data.random, data.pretrained), strict=True)
    runs = (*data.random, *data.pretrained)
    present = {k: label for k, label in METRICS.items() if any(k in run.metrics for run in runs)}
    mask = data.compare("segm/AP")
    spectra = (data.spectrum_before, data.spectrum_after)
    ranks = [
        effective_rank(torch.tensor(s, dtype=torch.float64)).item() if s else math.nan
        for s in spectra
    ]
    return page.render(
        Path(__file__).with_name("report.html.j2"),
        data=data,
        box=data.compare("bbox/AP"),
        mask=mask,
        mask_known=any(math.isfinite(v) for arm in mask for v in arm),
        knn_top1=data.knn.values,
        worst=max(data.conversion.values(), default=math.nan),
        seconds=sum(c.seconds or 0 for c in data.commands) or math.nan,
        head=["", *present.values()],
        rows=[(label, *_row(data.compare(key))) for key, label in present.items()],
        groups=[(page.key(*arm), _seeds(runs, present)) for arm, runs in arms],
        strip=_strip(data, present),
        ap_curves=_ap_curves(data),
        loss=_loss(data.loss),
        knn=_knn(data.knn, data.chance),
        spectrum=_spectrum(spectra, ranks),
        ranks=ranks,
        colours=[(class_colour(k), name) for k, name in enumerate(data.class_names)],
        samples=[_sample(number, sample, data) for number, sample in enumerate(data.samples, 1)],
        labelled=[_drawn(image, objects, data) for image, objects in data.labelled],
        mean=mean,
        spread_text=spread_text,
        known=all(map(math.isfinite, ranks)),
    )


def _row(ap: Comparison) -> tuple[str, ...]:
    words = {"wins": ("yes", True), "undecided": ("no", False), "loses": ("worse", False)}
    word = page.verdict(*words.get(ap.verdict, ("?", False)))
    arms = (spread_text(ap.random), spread_text(ap.pretrained))
    return (*arms, text.signed(ap.margin), text.number(ap.spread), word)


def _seeds(runs: Sequence[Run], keys: dict[str, str]) -> list[list[str]]:
    values = [[text.number(run.metrics.get(key, math.nan)) for key in keys] for run in runs]
    return [[f"seed {run.seed}", *row] for run, row in zip(runs, values, strict=True)]


def _strip(data: ReportData, present: dict[str, str]) -> Markup:
    rows = []
    for key in [key for key in ("bbox/AP", "segm/AP") if key in present]:
        ap = data.compare(key)
        rows.append((f"{present[key]}, random", RANDOM, ap.random))
        rows.append((f"{present[key]}, pretrained", PRETRAINED, ap.pretrained))
    values = "; ".join(f"{label} {', '.join(map(text.number, ap))}" for label, _, ap in rows)
    return strip_chart(rows, x_label="AP in percent", alt=f"AP of every seed: {values}")


def _ap_curves(data: ReportData) -> Markup:
    series = []
    for (label, style), runs in zip(_SERIES, (data.random, data.pretrained), strict=True):
        # A resumed run may have measured an iteration twice: the last one counts.
        curves = [dict(zip(*run.box_ap, strict=True)) for run in runs]
        # A mean over fewer seeds than the other points have would not be comparable with them.
        x = sorted(set.intersection(*map(set, curves))) if curves else []
        at = [[curve[i] for curve in curves] for i in x]
        low, high = [min(values) for values in at], [max(values) for values in at]
        series.append(Series(label, x, [mean(v) for v in at], style, low, high, markers=True))
    ends = "; ".join(f"{s.label} ends at {text.number(s.y[-1])}" for s in series if s.y)
    alt = f"Box AP over fine-tuning iterations. {ends}"
    return line_chart(series, x_label="fine-tuning iteration", y_label="box AP, %", alt=alt)


def _loss(curve: Curve) -> Markup:
    x, y = curve
    half = max(1, round(len(y) * 0.025))  # of a window of a twentieth of all records
    smooth = [mean(y[max(0, i - half) : i + half + 1]) for i in range(len(y))]
    series = [Series("each record", x, y, PRETRAINED, faint=True)]
    series += [Series("running mean", x, smooth, PRETRAINED)]
    alt = "Pretraining loss over iterations" + (f", from {y[0]:.3g} to {y[-1]:.3g}" if y else "")
    return line_chart(series, x_label=_ITERATION, y_label="loss", alt=alt, y_zero=False)


def _knn(curve: Curve, chance: float) -> Markup:
    x, y = curve
    series = [Series("chance", x, [chance] * len(x))]
    series += [Series("k-NN", x, y, PRETRAINED, markers=True)]
    alt = f"k-NN accuracy over pretraining: {', '.join(map(text.number, y))}"
    return line_chart(series, x_label=_ITERATION, y_label="k-NN accuracy, %", alt=alt)


def _spectrum(spectra: Sequence[Sequence[float]], ranks: Sequence[float]) -> Markup:
    effective = " and ".join(map(text.number, ranks))
    return spectrum_chart(
        [(*arm, values) for arm, values in zip(_SERIES, spectra, strict=True)],
        x_label="eigenvalue, largest first",
        y_label="share of the variance",
        alt=f"Spectrum of the embedding before and after pretraining; effective ranks {effective}",
    )


def _drawn(image: NDArray[np.uint8], d: Detections, data: ReportData) -> NDArray[np.uint8]:
    names = data.class_names
    return draw_detections(
        image, d.boxes, d.classes, names, scores=d.scores, masks=d.masks, scale=2
    )


def _sample(
    number: int, sample: Sample, data: ReportData
) -> list[tuple[str, str, NDArray[np.uint8], str]]:
    """The truth and both arms: heading, note, drawing, alternative text."""
    total = len(sample.truth.classes)
    drawn = _drawn(sample.image, sample.truth, data)
    cells = [("Truth", text.plural(total, "object"), drawn, f"Image {number}, the true objects")]
    for arm, objects in zip(_ARMS, (sample.random, sample.pretrained), strict=True):
        kept = objects.above(data.score_threshold)
        hits = count_found(sample.truth, kept)
        wrong = len(kept.classes) - hits
        note = f"{hits} of {total} found" + (f", {wrong} wrong" if wrong else "")
        alt = f"Image {number}, detections of the {arm[0].lower()} detector: {note}"
        cells.append((page.key(*arm), note, _drawn(sample.image, kept, data), alt))
    return cells
