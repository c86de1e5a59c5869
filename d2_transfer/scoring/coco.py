"""COCO's average precision by hotcoco or by pycocotools, on annotations that both read alike."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from d2_transfer.scoring.results import Detections
from d2_transfer.scoring.truth import Truth

BACKENDS = ("hotcoco", "pycocotools")
_METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl")


def coco_scores(
    truth: Truth, detections: Detections, iou_type: str, *, backend: str = "hotcoco"
) -> dict[str, Any]:
    """COCO's metrics in percent.

    Args:
        truth: the annotations.
        detections: what `read_results` returns.
        iou_type: "bbox" or "segm". The sizes of detected masks are those of the masks, not of their
            boxes, as in Detectron2.
        backend: one of :data:`BACKENDS`.

    Returns:
        ``{"AP", "AP50", "AP75", "APs", "APm", "APl", "per_class": {name: AP}}``; None for what has
        no object.
    """
    if isinstance(detections, Sequence) and not detections:
        precision, stats = _without_detections(truth, iou_type)
    else:
        evaluate = _hotcoco if backend == "hotcoco" else _pycocotools
        precision, stats = evaluate(truth, detections, iou_type)
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


def _hotcoco(truth: Truth, detections: Detections, iou_type: str) -> Evaluation:
    import hotcoco

    if isinstance(detections, Sequence):
        entries = _masks(truth, detections) if iou_type == "segm" else list(detections)
        detections = truth.hotcoco_for(iou_type).load_res(entries)
    return run(hotcoco.COCOeval(truth.hotcoco_for(iou_type), detections, iou_type))


def _pycocotools(truth: Truth, detections: Detections, iou_type: str) -> Evaluation:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    assert isinstance(detections, Sequence)
    gt = COCO()
    gt.dataset = truth.content_for(iou_type)
    with contextlib.redirect_stdout(io.StringIO()):
        gt.createIndex()
        # Copies, since loadRes adds to the entries.
        entries = _masks(truth, detections) if iou_type == "segm" else map(dict, detections)
        evaluation = COCOeval(gt, gt.loadRes(list(entries)), iou_type)
    return run(evaluation)


def _masks(truth: Truth, entries: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The entries with masks in compressed RLE and without boxes.

    Of an entry with a box, both backends take the box's area for that of the mask.
    """
    from pycocotools import mask as rle

    sizes = {image["id"]: (image["height"], image["width"]) for image in truth.content["images"]}
    masks = []
    for entry in entries:
        mask = entry["segmentation"]
        if isinstance(mask, list) or isinstance(mask["counts"], list):
            mask = rle.frPyObjects(mask, *sizes[entry["image_id"]])
            mask = rle.merge(mask) if isinstance(mask, list) else mask
        kept = {key: entry[key] for key in ("image_id", "category_id", "score")}
        masks.append({**kept, "segmentation": mask})
    return masks


def run(evaluation: Any) -> Evaluation:
    """Precision and the first six statistics of an evaluation of either backend."""
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return np.asarray(evaluation.eval["precision"]), list(evaluation.stats[:6])


def _without_detections(truth: Truth, iou_type: str) -> Evaluation:
    """Nothing is found: 0 wherever there is an object."""
    ranges = {"all": (0, 1e10), "s": (0, 32**2), "m": (32**2, 96**2), "l": (96**2, 1e10)}
    places = {c["id"]: n for n, c in enumerate(truth.content["categories"])}
    precision = np.full((10, 101, len(places), 4, 3), -1.0)
    for annotation in truth.content_for(iou_type)["annotations"]:
        if annotation["iscrowd"]:
            continue
        for number, (low, high) in enumerate(ranges.values()):
            if low <= annotation["area"] <= high:
                precision[:, :, places[annotation["category_id"]], number] = 0
    any_of = [0.0 if (precision[0, 0, :, n, 0] > -1).any() else -1.0 for n in range(4)]
    return precision, [any_of[0], any_of[0], any_of[0], *any_of[1:]]
