"""`compare`: the difference of two runs in AP, with an interval over the test images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from cwrgp.statistics import TrialDifference, bonferroni_level, trial_difference
from d2_transfer.data.large_json import paused_garbage_collection
from d2_transfer.scoring.coco import with_runs
from d2_transfer.scoring.matches import coco_matches
from d2_transfer.scoring.results import Results, read_results
from d2_transfer.scoring.score import named_truth
from d2_transfer.scoring.truth import Truth
from d2_transfer.scoring.voc import voc_arrays, voc_matches
from d2_transfer.scoring.weighted import ClassMatches, class_aps, resampled_weights

RESAMPLES = 500
ROUNDING = 1e-9  # AP points
_KINDS = {"bbox": "box AP", "segm": "mask AP"}
# Metric -> index of its thresholds of IoU, and area.
_METRICS: dict[str, tuple[Any, str]] = {
    "AP": (slice(None), "all"),
    "AP50": (0, "all"),
    "AP75": (5, "all"),
    "APs": (slice(None), "s"),
    "APm": (slice(None), "m"),
    "APl": (slice(None), "l"),
}


@paused_garbage_collection()
def compare(
    data: str,
    first: Results,
    second: Results,
    iou_types: Sequence[str] = ("bbox",),
    *,
    classes: Sequence[str] | None = None,
    areas: bool = False,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Any]:
    """Compares two files of detections on the same images.

    The interval is the value +- the normal quantile times the standard error, which a bootstrap
    over images gives: each resample draws as many images as there are, with replacement, the same
    for both. It holds for these two runs: how much AP varies between trainings, they do not show.

    Args:
        data: as for `d2_transfer.score`.
        first: detections, as for `d2_transfer.score`.
        second: likewise.
        iou_types: "bbox", "segm" or both.
        classes: as for `d2_transfer.score`.
        areas: also APs, APm and APl, in four times the time.
        resamples: of the bootstrap.
        seed: of the bootstrap.

    Returns:
        ``{"protocol", "images", "first", "second", "difference", "verdict"}``. ``first`` and
        ``second`` hold ``{"bbox": {"AP": ..., "per_class": {...}}, "segm": ...}`` in percent, by
        the protocol of the data. ``difference`` has the same keys, each with ``{"value", "low",
        "high"}``: second minus first in AP points, and its 95 % interval; ``low`` and ``high`` are
        None where all resamples give the same, such as those of a single image with objects. Those
        of AP, box and mask, hold together; all others are not adjusted for their number. None:
        there are no such objects.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: as `d2_transfer.score`, or fewer than 2 resamples.
    """
    if resamples < 2:
        raise ValueError(f"resamples {resamples} is below 2")
    masks = "segm" in iou_types
    truth = named_truth(data, iou_types, classes)
    if areas and truth.protocol != "coco":
        raise ValueError(f"{data} is scored by {truth.protocol}, which has no areas; omit areas")
    both = [
        read_results(truth, results, backend="pycocotools", masks=masks)
        for results in (first, second)
    ]
    identical = both[0] == both[1]
    images = len(truth.content["images"])
    drawn = resampled_weights(images, 0 if identical else resamples, np.random.default_rng(seed))
    weights = np.concatenate([np.ones((1, images)), drawn])
    level = bonferroni_level(0.95, len(set(iou_types)))
    scores: tuple[dict[str, Any], dict[str, Any]] = ({}, {})
    differences, sentences = {}, []
    for kind in sorted(set(iou_types)):
        values = [metrics_under(truth, entries, kind, weights, areas) for entries in both]
        for found, of_run in zip(scores, values, strict=True):
            found[kind] = _nested({name: _number(v[0]) for name, v in of_run.items()})
        changes = {
            name: _difference(values[1][name] - values[0][name], level if name == ("AP",) else 0.95)
            for name in values[0]
        }
        differences[kind] = _nested({name: c and _shown(c) for name, c in changes.items()})
        if (of_ap := changes[("AP",)]) is not None:
            sentences.append(_sentence(of_ap, _KINDS[kind], len(set(iou_types))))
    return {
        "protocol": truth.protocol,
        "images": images,
        "first": scores[0],
        "second": scores[1],
        "difference": differences,
        "verdict": "identical runs"
        if identical
        else f"these two runs, on {images:,} images: {'; '.join(sentences)}",
    }


Name = tuple[str, ...]


def metrics_under(
    truth: Truth, entries: Sequence[Any], kind: str, weights: np.ndarray, areas: bool
) -> dict[Name, np.ndarray]:
    """Each metric, and AP of each class ("per_class", name), in percent under each set of weights.

    Args:
        truth: the annotations.
        entries: checked detections.
        kind: "bbox" or "segm".
        weights: of the images, (r, images).
        areas: also APs, APm and APl.

    Returns:
        For each name float64 (r,); nan where there are no objects.
    """
    found: dict[Name, np.ndarray] = {}
    by_area: dict[str, np.ndarray] = {}
    for name, (thresholds, area) in _METRICS.items():
        if area != "all" and not areas:
            continue
        if area not in by_area:
            matches = matches_of(truth, entries, kind, area)
            by_area[area] = 100 * class_aps(matches, weights, truth.protocol)
        chosen = by_area[area][:, :, thresholds]
        found[(name,)] = _mean(chosen.reshape(len(weights), -1))
    for number, name in enumerate(truth.classes):
        found["per_class", name] = _mean(by_area["all"][:, number])
    return found


def _mean(values: np.ndarray) -> np.ndarray:
    """Of each row, over what is not nan; nan where nothing is."""
    present = ~np.isnan(values)
    count = present.sum(axis=1)
    total = np.where(present, values, 0).sum(axis=1)
    return np.divide(total, count, out=np.full(len(values), np.nan), where=count > 0)


def matches_of(
    truth: Truth, entries: Sequence[Any], kind: str, area: str = "all"
) -> list[ClassMatches]:
    """The matches by the data set's own protocol, for each class."""
    if truth.voc is not None:
        return voc_matches(truth.voc, truth.classes, **voc_arrays(entries))
    return coco_matches(truth, with_runs(truth, entries) if kind == "segm" else entries, kind, area)


def _difference(values: np.ndarray, level: float) -> TrialDifference | None:
    """Of the value under equal weights, and those of the resamples; None: no objects.

    An error of 0 is no certainty: resamples that all give the same, such as those of one image, do
    not show how much others would vary.
    """
    if np.isnan(values[0]):
        return None
    resampled = values[1:][~np.isnan(values[1:])]  # a resample may have no object of a class
    error = float(resampled.std(ddof=1)) if len(resampled) > 1 else 0.0
    return trial_difference([values[0]], error if error > ROUNDING else 0.0, level=level)


def _shown(change: TrialDifference) -> dict[str, float | None]:
    low, value, high = map(float, change.interval)
    known = change.error > 0
    return {"value": value, "low": low if known else None, "high": high if known else None}


def _sentence(change: TrialDifference, metric: str, kinds: int) -> str:
    low, value, high = change.interval
    better = "second" if value > 0 else "first"
    if not change.error:
        if abs(value) <= ROUNDING:
            return f"{metric} is the same, in every resample too"
        return (
            f"the {better} has {abs(value):.1f} more {metric}, but all resamples give the same, so"
            " these images show no interval"
        )
    if value < 0:
        low, high = -high, -low
    together = "95 % interval" if kinds == 1 else "joint 95 % interval"
    interval = f"{together} {low:.1f} to {high:.1f}"
    if low > 0:
        return f"the {better} is better by {abs(value):.1f} {metric}, {interval}"
    level = bonferroni_level(0.95, kinds)
    return (
        f"no difference in {metric} is shown: the {better} has {abs(value):.1f} more, {interval};"
        f" these images show differences of {change.detectable(level=level):.1f} or more with 80 %"
        " power"
    )


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _nested(values: dict[Name, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {"per_class": {}}
    for (*outer, name), value in values.items():
        (found[outer[0]] if outer else found)[name] = value
    return found
