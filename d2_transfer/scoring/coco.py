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
    truth: Truth, detections: Detections, iou_types: Sequence[str], *, backend: str = "hotcoco"
) -> dict[str, dict[str, Any]]:
    """COCO's metrics in percent.

    Args:
        truth: the annotations.
        detections: what `read_results` returns.
        iou_types: "bbox", "segm" or both. The size of a detected mask is its own area, not that of
            its box, as in Detectron2.
        backend: one of :data:`BACKENDS`.

    Returns:
        For each of ``iou_types``: ``{"AP", "AP50", "AP75", "APs", "APm", "APl", "per_class": {name:
        AP}}``; None for what has no object.
    """
    if isinstance(detections, Sequence) and not detections:
        evaluations = {kind: _without_detections(truth, kind) for kind in iou_types}
    else:
        evaluate = _hotcoco if backend == "hotcoco" else _pycocotools
        evaluations = evaluate(truth, detections, iou_types)
    return {kind: _summarize(truth, *evaluations[kind]) for kind in iou_types}


def _summarize(truth: Truth, precision: np.ndarray, stats: Sequence[float]) -> dict[str, Any]:
    # (IoU, recall, class, area, detections); -1 where a class has no object.
    by_class = precision[:, :, :, 0, 2]
    per_class = {}
    places = _places(truth)
    for name, category in zip(truth.classes, truth.content["categories"], strict=True):
        values = by_class[:, :, places[category["id"]]]
        values = values[values > -1]
        per_class[name] = float(100 * values.mean()) if values.size else None
    named = zip(_METRICS, stats, strict=True)
    scores = {name: None if value < 0 else float(100 * value) for name, value in named}
    return {**scores, "per_class": per_class}


def _places(truth: Truth) -> dict[Any, int]:
    """The place of each category in the results of both backends, which sort them by id."""
    return {
        number: n for n, number in enumerate(sorted(c["id"] for c in truth.content["categories"]))
    }


Evaluation = tuple[np.ndarray, Sequence[float]]


# Where detections have boxes, both backends take the areas of these, for masks too. So the areas
# are replaced before masks are scored, which therefore come last.


def _hotcoco(
    truth: Truth, detections: Detections, iou_types: Sequence[str]
) -> dict[str, Evaluation]:
    import hotcoco

    masks: list[Any] = []
    if isinstance(detections, Sequence):
        entries = with_runs(truth, detections) if "segm" in iou_types else list(detections)
        masks = [entry.get("segmentation") for entry in entries]
        detections = truth.hotcoco.load_res(entries)
    evaluations = {}
    for kind in sorted(iou_types):
        if kind == "segm":
            areas = np.asarray(hotcoco.mask.area(masks), dtype=np.float64)
            detections.update_anns(ids=np.arange(1, len(masks) + 1), area=areas)
        evaluations[kind] = run(hotcoco.COCOeval(truth.hotcoco_for(kind), detections, kind))
    return evaluations


def _pycocotools(
    truth: Truth, detections: Detections, iou_types: Sequence[str]
) -> dict[str, Evaluation]:
    from pycocotools import mask as rle
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    assert isinstance(detections, Sequence)
    entries = with_runs(truth, detections) if "segm" in iou_types else detections
    loaded: Any = None
    evaluations = {}
    for kind in sorted(iou_types):
        gt = COCO()
        gt.dataset = truth.content_for(kind)
        with contextlib.redirect_stdout(io.StringIO()):
            gt.createIndex()
            if loaded is None:
                loaded = gt.loadRes([dict(entry) for entry in entries])  # it adds to the entries
        if kind == "segm":
            for entry in loaded.dataset["annotations"]:
                entry["area"] = float(rle.area(entry["segmentation"]))
        evaluations[kind] = run(COCOeval(gt, loaded, kind))
    return evaluations


def with_runs(truth: Truth, entries: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The entries with all masks in compressed RLE, so that both backends see the same."""
    from pycocotools import mask as rle

    masks = [entry["segmentation"] for entry in entries]
    if set(map(type, masks)) == {dict} and {type(mask["counts"]) for mask in masks} == {str}:
        return list(entries)
    sizes = {i["id"]: (i["height"], i["width"]) for i in truth.content["images"]}
    found = []
    for entry in entries:
        mask = entry["segmentation"]
        if isinstance(mask, list) or isinstance(mask["counts"], list):
            mask = rle.frPyObjects(mask, *sizes[entry["image_id"]])
            entry = {**entry, "segmentation": rle.merge(mask) if isinstance(mask, list) else mask}
        found.append(entry)
    return found


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
    places = _places(truth)
    precision = np.full((10, 101, len(places), 4, 3), -1.0)
    for annotation in truth.content_for(iou_type)["annotations"]:
        if annotation["iscrowd"]:
            continue
        for number, (low, high) in enumerate(ranges.values()):
            if low <= annotation["area"] <= high:
                precision[:, :, places[annotation["category_id"]], number] = 0
    any_of = [0.0 if (precision[0, 0, :, n, 0] > -1).any() else -1.0 for n in range(4)]
    return precision, [any_of[0], any_of[0], any_of[0], *any_of[1:]]
