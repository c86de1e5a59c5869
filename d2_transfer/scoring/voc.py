"""PASCAL VOC's average precision, vectorised, as Detectron2 computes it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from d2_transfer.scoring.weighted import ClassMatches

THRESHOLDS = np.arange(50, 100, 5) / 100  # of IoU, as Detectron2 has them; VOC's own is 0.5


@dataclass(frozen=True)
class VocObject:
    """An object of an annotation file.

    Attributes:
        name: of its class.
        box: x0, y0, x1, y1 as in the file: pixels are counted from 1 and x1, y1 are included.
        difficult: whether VOC's metric ignores it.
    """

    name: str
    box: tuple[float, float, float, float]
    difficult: bool


def voc_scores(
    truth: Sequence[Sequence[VocObject]],
    classes: Sequence[str],
    *,
    images: np.ndarray,
    labels: np.ndarray,
    boxes: np.ndarray,
    scores: np.ndarray,
) -> dict[str, dict[str, Any]]:
    """VOC's metrics in percent.

    As in Detectron2, scores are rounded to 3 decimals and boxes to 0.1 pixels, since its files of
    detections have so many. Difficult objects are ignored: neither found nor missed. Classes
    without an object that counts are no part of the means.

    Args:
        truth: the objects of each image.
        classes: names.
        images: int64 (n,), number of the image of each detection.
        labels: int64 (n,), number of its class.
        boxes: float64 (n, 4), x0, y0, x1, y1; pixels are counted from 1 and x1, y1 are included.
        scores: float64 (n,).

    Returns:
        ``{"voc07": ..., "voc10": ...}``: with precision at 11 points of recall, and with the area
        under the curve. Each is ``{"AP", "AP50", "AP75", "APs", "APm", "APl", "per_class": {name:
        AP}}``; None for what has no object, and for APs, APm and APl: VOC's metrics have no areas.
    """
    aps = {name: np.full((len(classes), len(THRESHOLDS)), np.nan) for name in _INTEGRALS}
    found = voc_matches(truth, classes, images=images, labels=labels, boxes=boxes, scores=scores)
    for label, matches in enumerate(found):
        objects = matches.objects.sum()
        if not objects:
            continue
        for number in range(len(THRESHOLDS)):
            tp = matches.hit[number].cumsum()
            counted = (~matches.ignored[number]).cumsum()
            recall = tp / objects
            precision = tp / np.maximum(counted, np.finfo(np.float64).eps)
            for name, integral in _INTEGRALS.items():
                aps[name][label, number] = 100 * integral(recall, precision)
    return {name: _summarize(values, classes) for name, values in aps.items()}


def voc_matches(
    truth: Sequence[Sequence[VocObject]],
    classes: Sequence[str],
    *,
    images: np.ndarray,
    labels: np.ndarray,
    boxes: np.ndarray,
    scores: np.ndarray,
) -> list[ClassMatches]:
    """The detections of each class that find an object, by VOC's rules.

    The arguments are those of `voc_scores`.
    """
    counts, gt, difficult, gt_labels = _flatten(truth, classes)
    image_of = np.repeat(np.arange(len(truth)), counts.sum(axis=1))
    scores, boxes = np.round(scores, 3), np.round(boxes, 1)
    found = []
    for label in range(len(classes)):
        of_class = gt_labels == label
        mine = (labels == label).nonzero()[0]
        # Not stable, like Detectron2's, so that ties fall alike.
        mine = mine[np.argsort(-scores[mine])]
        hit, ignored = _hits(
            counts[:, label], gt[of_class], difficult[of_class], images[mine], boxes[mine]
        )
        objects = np.bincount(image_of[of_class & ~difficult], minlength=len(truth))
        found.append(ClassMatches(images[mine], hit, ignored, objects))
    return found


def voc_arrays(
    detections: Sequence[Mapping[str, Any]], corners: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """Checked entries in COCO's results format as the arguments of `voc_scores`.

    Args:
        detections: with numbers of images and categories that count from 1.
        corners: (n, 4), the boxes as `voc_scores` takes them; None: made of the entries.
    """
    if corners is None:
        boxes = np.array([entry["bbox"] for entry in detections], dtype=np.float64).reshape(-1, 4)
        corners = np.concatenate([boxes[:, :2] + 1, boxes[:, :2] + boxes[:, 2:]], axis=1)
    assert len(corners) == len(detections), "corners of entries that were dropped"
    return {
        "images": np.array([entry["image_id"] for entry in detections], dtype=np.int64) - 1,
        "labels": np.array([entry["category_id"] for entry in detections], dtype=np.int64) - 1,
        "boxes": corners.astype(np.float64),
        "scores": np.array([entry["score"] for entry in detections], dtype=np.float64),
    }


def _summarize(aps: np.ndarray, classes: Sequence[str]) -> dict[str, Any]:
    """The metrics of AP (classes, thresholds); nan where a class has no object."""
    present = ~np.isnan(aps[:, 0])
    per_class = {
        name: float(ap.mean()) if found else None
        for name, ap, found in zip(classes, aps, present, strict=True)
    }
    summary: dict[str, Any] = dict.fromkeys(("AP", "AP50", "AP75", "APs", "APm", "APl"))
    if present.any():
        means = aps[present].mean(axis=0)
        summary |= {"AP": float(means.mean()), "AP50": float(means[0]), "AP75": float(means[5])}
    return {**summary, "per_class": per_class}


def _flatten(
    truth: Sequence[Sequence[VocObject]], classes: Sequence[str]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Objects of each image and class (images, classes); box, difficulty and class of each."""
    place = {name: number for number, name in enumerate(classes)}
    flat = [thing for things in truth for thing in things]
    image = np.repeat(np.arange(len(truth)), [len(things) for things in truth])
    labels = np.array([place[thing.name] for thing in flat], dtype=np.int64)
    counts = np.zeros((len(truth), len(classes)), dtype=np.int64)
    np.add.at(counts, (image, labels), 1)
    boxes = np.array([thing.box for thing in flat], dtype=np.float64).reshape(-1, 4)
    return counts, boxes, np.array([thing.difficult for thing in flat], dtype=bool), labels


def _hits(
    counts: np.ndarray, gt: np.ndarray, difficult: np.ndarray, images: np.ndarray, boxes: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Which detections of one class find an object, and which are ignored; (thresholds, n) each.

    Args:
        counts: objects in each image.
        gt: their boxes, image by image.
        difficult: whether they are ignored.
        images: of each detection, the most confident first.
        boxes: likewise.
    """
    overlap, match = _best_matches(counts, gt, images, boxes)
    found = np.zeros((len(THRESHOLDS), len(images)), dtype=bool)
    ignored = np.zeros_like(found)
    if not len(gt):
        return found, ignored
    for number, threshold in enumerate(THRESHOLDS):
        near = overlap > threshold
        ignored[number] = near & difficult[match]
        candidates = (near & ~ignored[number]).nonzero()[0]
        # An object is found by the first detection that it is the best match of.
        _, first = np.unique(match[candidates], return_index=True)
        found[number, candidates[first]] = True
    return found, ignored


def _best_matches(
    counts: np.ndarray, gt: np.ndarray, images: np.ndarray, boxes: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The largest IoU of each detection with an object of its image, and the object; -inf: none."""
    overlap, match = np.full(len(images), -np.inf), np.zeros(len(images), dtype=np.int64)
    starts = np.concatenate([[0], counts.cumsum()])
    pairs = counts[images]  # of each detection
    with_objects = pairs.nonzero()[0]
    if not len(with_objects):
        return overlap, match
    sizes = pairs[with_objects]
    begins = np.concatenate([[0], sizes.cumsum()[:-1]])
    detection = np.repeat(with_objects, sizes)
    place = np.arange(sizes.sum()) - np.repeat(begins, sizes)
    thing = starts[images[detection]] + place
    iou = _iou(boxes[detection], gt[thing])
    best = np.maximum.reduceat(iou, begins)
    is_best = iou == np.repeat(best, sizes)
    first = np.minimum.reduceat(np.where(is_best, thing, len(gt)), begins)
    overlap[with_objects], match[with_objects] = best, first
    return overlap, match


def _iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Of boxes (n, 4) whose last pixels are included."""
    low, high = np.maximum(a[:, :2], b[:, :2]), np.minimum(a[:, 2:], b[:, 2:])
    shared = np.maximum(high - low + 1, 0).prod(axis=1)
    area_a, area_b = ((x[:, 2:] - x[:, :2] + 1).prod(axis=1) for x in (a, b))
    return shared / (area_a + area_b - shared)


def _ap_2007(recall: np.ndarray, precision: np.ndarray) -> float:
    """The mean of the largest precisions from 11 points of recall on."""
    ap = 0.0
    for point in np.arange(0.0, 1.1, 0.1):
        above = precision[recall >= point]
        ap += (above.max() if len(above) else 0.0) / 11
    return ap


def _area(recall: np.ndarray, precision: np.ndarray) -> float:
    """The area under the precision, made to fall monotonically."""
    recall = np.concatenate([[0.0], recall, [1.0]])
    precision = np.concatenate([[0.0], precision, [0.0]])
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    steps = (recall[1:] != recall[:-1]).nonzero()[0]
    return float(((recall[steps + 1] - recall[steps]) * precision[steps + 1]).sum())


_INTEGRALS: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "voc07": _ap_2007,
    "voc10": _area,
}
