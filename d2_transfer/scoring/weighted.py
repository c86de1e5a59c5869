"""AP where each image counts as often as its weight says: what a bootstrap over images needs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

_RECALLS = np.linspace(0, 1, 101)
_RECALLS_07 = np.arange(0.0, 1.1, 0.1)
_AT_ONCE = 16_000_000  # weights of detections in memory


@dataclass(frozen=True)
class ClassMatches:
    """The detections of one class, the most confident first, at several thresholds of IoU.

    Attributes:
        images: int64 (n,), the index of the image of each detection.
        hit: bool (thresholds, n), whether it finds an object.
        ignored: likewise, whether it counts neither as a hit nor as a miss.
        objects: int64 (images,), the objects of each image that are to be found.
    """

    images: np.ndarray
    hit: np.ndarray
    ignored: np.ndarray
    objects: np.ndarray


def weighted_ap(matches: ClassMatches, weights: np.ndarray, protocol: str) -> np.ndarray:
    """AP of one class under weights, as of a data set that holds each image so many times.

    Args:
        matches: of the class.
        weights: float64 (r, images), r sets of non-negative whole numbers.
        protocol: "coco" (precision at 101 points of recall), "voc07" (at 11) or "voc10" (the area).

    Returns:
        float64 (r, thresholds), in [0, 1]; nan where no object has a weight.
    """
    rows = max(1, _AT_ONCE // max(1, len(matches.images)))
    chunks = range(0, len(weights), rows)
    return np.concatenate([_chunk(matches, weights[n : n + rows], protocol) for n in chunks])


def _chunk(matches: ClassMatches, weights: np.ndarray, protocol: str) -> np.ndarray:
    integral = _INTEGRALS[protocol]
    objects = weights @ matches.objects.astype(np.float64)
    of_detections = weights[:, matches.images]
    total = of_detections.cumsum(axis=1)
    aps = np.full((len(weights), len(matches.hit)), np.nan)
    present = objects > 0
    if not present.any():
        return aps
    for number, (hit, ignored) in enumerate(zip(matches.hit, matches.ignored, strict=True)):
        # Recall rises, and precision is largest, at hits only.
        at, omitted = hit.nonzero()[0], ignored.nonzero()[0]
        tp = of_detections[:, at].cumsum(axis=1)
        before = np.zeros((len(weights), len(omitted) + 1))
        of_detections[:, omitted].cumsum(axis=1, out=before[:, 1:])
        counted = total[:, at] - before[:, np.searchsorted(omitted, at)]
        precision = (tp / (counted + np.spacing(1)))[present]
        recall = (tp[present].T / objects[present]).T
        envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        aps[present, number] = integral(recall, envelope)
    return aps


def _at_points(points: np.ndarray, recall: np.ndarray, envelope: np.ndarray) -> np.ndarray:
    padded = np.concatenate([envelope, np.zeros((len(envelope), 1))], axis=1)
    pairs = zip(recall, padded, strict=True)
    return np.array([values[np.searchsorted(r, points)].mean() for r, values in pairs])


def _area(recall: np.ndarray, envelope: np.ndarray) -> np.ndarray:
    steps = np.diff(recall, axis=1, prepend=0.0)
    return (steps * envelope).sum(axis=1)


_INTEGRALS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "coco": lambda recall, envelope: _at_points(_RECALLS, recall, envelope),
    "voc07": lambda recall, envelope: _at_points(_RECALLS_07, recall, envelope),
    "voc10": _area,
}


def precision_curve(matches: Sequence[ClassMatches], threshold: int = 0) -> np.ndarray:
    """Precision at 101 points of recall, the mean over the classes that have objects.

    Args:
        matches: of each class.
        threshold: index of the threshold of IoU; 0: .5.

    Returns:
        float64 (101,), interpolated as COCO's metric does; nan without objects.
    """
    curves = []
    for of_class in matches:
        if objects := of_class.objects.sum():
            hit = of_class.hit[threshold]
            counted = (~of_class.ignored[threshold]).cumsum()[hit]
            precision = np.arange(1, hit.sum() + 1) / counted
            envelope = np.maximum.accumulate(precision[::-1])[::-1]
            recall = np.arange(1, hit.sum() + 1) / objects
            curves.append(np.append(envelope, 0.0)[np.searchsorted(recall, _RECALLS)])
    return np.mean(curves, axis=0) if curves else np.full(len(_RECALLS), np.nan)


def resampled_weights(images: int, resamples: int, generator: np.random.Generator) -> np.ndarray:
    """How often each image is drawn, (resamples, images), with replacement, ``images`` draws."""
    draws = generator.multinomial(images, np.full(images, 1 / images), size=resamples)
    return draws.astype(np.float64)


def class_aps(matches: Sequence[ClassMatches], weights: np.ndarray, protocol: str) -> np.ndarray:
    """`weighted_ap` of all classes: (r, classes, thresholds), nan where a class has no object."""
    return np.stack([weighted_ap(of_class, weights, protocol) for of_class in matches], axis=1)
