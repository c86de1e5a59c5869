"""What the demo's report shows, as plain values, and what may be concluded from it.

Metrics have Detectron2's names: "bbox/AP", "bbox/AP50", "bbox/AP75", "segm/AP", ..., in percent.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from drawing import Detections


@dataclass(frozen=True)
class Run:
    """One fine-tuning run.

    Attributes:
        seed: of the run.
        metrics: final metrics in percent.
        iterations: at which box AP was measured on the way, the last included.
        box_ap: box AP in percent at each of them.
    """

    seed: int
    metrics: dict[str, float]
    iterations: Sequence[int] = ()
    box_ap: Sequence[float] = ()


@dataclass(frozen=True)
class Pretraining:
    """Curves of the pretraining run.

    Attributes:
        iterations, loss: the loss as logged.
        knn_iterations, knn_top1: k-NN accuracy in percent; first at iteration 0, random weights.
        chance: accuracy of guessing, in percent.
    """

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
        random: fine-tuning runs from random weights, one per seed.
        pretrained: fine-tuning runs from the pretrained weights, one per seed.
        pretraining: curves.
        spectrum_before: eigenvalues of the embedding's covariance with random weights, any order.
        spectrum_after: the same after pretraining.
        conversion: largest relative feature difference, by what was compared.
        conversion_tolerance: what the conversion allows.
        samples: images with predictions.
        class_names: in the order of the class indices.
        unlabelled: some of the images that pretraining sees.
        labelled: some of the fine-tuning images with their truth.
        counts: sizes of the data set, in the order shown: {"unlabelled images": 3000, ...}.
        commands: in the order in which they ran.
        environment: versions and hardware, in the order shown.
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
    """Both arms in one metric, over seeds.

    Attributes:
        metric: its name.
        random, pretrained: each seed's value in percent.
    """

    metric: str
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
    random, pretrained = (
        tuple(run.metrics.get(metric, math.nan) for run in runs)
        for runs in (data.random, data.pretrained)
    )
    return Comparison(metric, random, pretrained)


def mean(values: Sequence[float]) -> float:
    """Arithmetic mean; NaN of nothing."""
    return math.fsum(values) / len(values) if values else math.nan


def deviation(values: Sequence[float]) -> float:
    """Sample standard deviation (n - 1); NaN with fewer than two values or a missing one."""
    if len(values) < 2 or not all(map(math.isfinite, values)):
        return math.nan
    return statistics.stdev(values)
