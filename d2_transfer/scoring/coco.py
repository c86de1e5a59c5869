"""COCO's average precision by hotcoco or by pycocotools, on annotations that both read alike."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from d2_transfer.scoring.truth import Truth

BACKENDS = ("hotcoco", "pycocotools")
_METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl")


def coco_scores(
    truth: Truth,
    results: Path | Sequence[Mapping[str, Any]],
    iou_type: str,
    *,
    backend: str = "hotcoco",
) -> dict[str, Any]:
    """COCO's metrics in percent.

    Args:
        truth: the annotations.
        results: a file in COCO's results format, or its entries. The ids of images and categories
            are those of ``truth.content``.
        iou_type: "bbox" or "segm".
        backend: one of :data:`BACKENDS`.

    Returns:
        ``{"AP", "AP50", "AP75", "APs", "APm", "APl", "per_class": {name: AP}}``; None for what has
        no object.
    """
    if not isinstance(results, Path) and not results:
        evaluation = _without_results(truth, iou_type)
    elif backend == "hotcoco":
        evaluation = _hotcoco(truth, results, iou_type)
    else:
        evaluation = _pycocotools(truth, results, iou_type)
    precision, stats = evaluation
    # (IoU, recall, class, area, detections); -1 where a class has no object.
    by_class = precision[:, :, :, 0, 2]
    per_class = {}
    for number, name in enumerate(truth.classes):
        values = by_class[:, :, number]
        values = values[values > -1]
        per_class[name] = float(100 * values.mean()) if values.size else None
    named = zip(_METRICS, stats, strict=True)
    scores = {name: None if value < 0 else float(100 * value) for name, value in named}
    return {**scores, "per_class": per_class}


Evaluation = tuple[np.ndarray, Sequence[float]]


def _hotcoco(
    truth: Truth, results: Path | Sequence[Mapping[str, Any]], iou_type: str
) -> Evaluation:
    import hotcoco

    gt = hotcoco.COCO(truth.content)
    given = str(results) if isinstance(results, Path) else [dict(entry) for entry in results]
    evaluation = hotcoco.COCOeval(gt, gt.load_res(given), iou_type)
    return _run(evaluation)


def _pycocotools(
    truth: Truth, results: Path | Sequence[Mapping[str, Any]], iou_type: str
) -> Evaluation:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    gt = COCO()
    gt.dataset = truth.content
    with contextlib.redirect_stdout(io.StringIO()):
        gt.createIndex()
        given = str(results) if isinstance(results, Path) else [dict(entry) for entry in results]
        evaluation = COCOeval(gt, gt.loadRes(given), iou_type)
    return _run(evaluation)


def _run(evaluation: Any) -> Evaluation:
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return np.asarray(evaluation.eval["precision"]), list(evaluation.stats[:6])


def _without_results(truth: Truth, iou_type: str) -> Evaluation:
    """Nothing is found: 0 wherever there is an object."""
    ranges = {"all": (0, 1e10), "s": (0, 32**2), "m": (32**2, 96**2), "l": (96**2, 1e10)}
    places = {c["id"]: n for n, c in enumerate(truth.content["categories"])}
    precision = np.full((10, 101, len(places), 4, 3), -1.0)
    for annotation in truth.content["annotations"]:
        if annotation["iscrowd"]:
            continue
        for number, (low, high) in enumerate(ranges.values()):
            if low <= annotation["area"] <= high:
                precision[:, :, places[annotation["category_id"]], number] = 0
    any_of = [0.0 if (precision[0, 0, :, n, 0] > -1).any() else -1.0 for n in range(4)]
    return precision, [any_of[0], any_of[0], any_of[0], *any_of[1:]]
