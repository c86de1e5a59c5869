"""PASCAL VOC's average precision, vectorised, as Detectron2 computes it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from d2_transfer.data.voc import VocObject

THRESHOLDS = np.arange(50, 100, 5) / 100  # of IoU, as Detectron2 has them; VOC's own is 0.5


def voc_ap(
    truth: Sequence[Sequence[VocObject]],
    images: np.ndarray,
    boxes: np.ndarray,
    scores: np.ndarray,
    name: str,
    *,
    metric_2007: bool,
) -> np.ndarray | None:
    """AP of one class at each of :data:`THRESHOLDS`.

    As in Detectron2, scores are rounded to 3 decimals and boxes to 0.1 pixels, since its files of
    detections have so many. Difficult objects are ignored: neither found nor missed.

    Args:
        truth: the objects of each image.
        images: int64 (n,), number of the image of each detection.
        boxes: float64 (n, 4), x0, y0, x1, y1; pixels are counted from 1 and x1, y1 are included.
        scores: float64 (n,).
        name: of the class.
        metric_2007: precision at 11 points of recall, instead of the area under the curve.

    Returns:
        float64 (10,) in [0, 1]; None where the class has no object that counts.
    """
    objects = [[thing for thing in things if thing.name == name] for things in truth]
    counts = np.array([len(things) for things in objects])
    flat = [thing for things in objects for thing in things]
    gt = np.array([thing.box for thing in flat], dtype=np.float64).reshape(-1, 4)
    difficult = np.array([thing.difficult for thing in flat], dtype=bool)
    num_positive = int((~difficult).sum())
    if not num_positive:
        return None
    scores = np.round(scores, 3)
    order = np.argsort(-scores)  # not stable, like Detectron2's, so that ties fall alike
    images, boxes = images[order], np.round(boxes[order], 1)
    overlap, match = _best_matches(counts, gt, images, boxes)
    aps = []
    for threshold in THRESHOLDS:
        hit = overlap > threshold
        ignored = hit & difficult[match] if len(gt) else hit
        candidates = (hit & ~ignored).nonzero()[0]
        # An object is found by the first detection that it is the best match of.
        _, first = np.unique(match[candidates], return_index=True)
        tp = np.zeros(len(images))
        tp[candidates[first]] = 1
        fp = ~ignored & (tp == 0)
        tp, fp = tp.cumsum(), fp.cumsum()
        recall = tp / num_positive
        precision = tp / np.maximum(tp + fp, np.finfo(np.float64).eps)
        aps.append(_ap_2007(recall, precision) if metric_2007 else _area(recall, precision))
    return np.array(aps)


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
