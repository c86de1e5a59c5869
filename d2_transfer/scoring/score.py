"""`score`: AP of detections from any framework, by COCO's metric and by VOC's."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from d2_transfer.data.coco import check_mask, is_number
from d2_transfer.data.spec import CocoSpec, VocSpec, parse_spec
from d2_transfer.scoring.coco import BACKENDS, coco_scores
from d2_transfer.scoring.truth import Truth, check_object, load_truth
from d2_transfer.scoring.voc import voc_ap

IOU_TYPES = ("bbox", "segm")
Results = str | PathLike[str] | Sequence[Mapping[str, Any]]


def score(
    data: str,
    results: Results,
    iou_types: Sequence[str] = ("bbox",),
    *,
    classes: Sequence[str] | None = None,
    backend: str = "hotcoco",
) -> dict[str, Any]:
    """Scores detections. No image is opened, and no model is needed.

    Args:
        data: ``coco:ANN.json`` or ``voc:ROOT:SPLIT``.
        results: detections in COCO's results format, a file or its entries: image_id, category_id,
            bbox (x, y, width, height in pixels from 0) and score, and segmentation for masks. For
            VOC data, image_id is the name in the list and category_id counts from 1.
        iou_types: "bbox", "segm" or both.
        classes: names of the classes of VOC data, in the order of category_id; None: those that
            occur in the split, sorted.
        backend: "hotcoco", or "pycocotools", which is slower and gives the same.

    Returns:
        In percent: ``{"protocol": ..., "bbox": {"AP", "AP50", "AP75", "APs", "APm", "APl",
        "per_class": {...}}, "segm": ...}``. The protocol, "coco", "voc07" (11 points of recall) or
        "voc10" (all points), is the data set's own, and ``bbox`` is by it; VOC data have all three
        under their names. Difficult objects count in "coco" and are ignored by VOC's metrics, which
        have no areas. None: there are no such objects.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: malformed annotations, or a result of an unknown image or category.
    """
    if backend not in BACKENDS:
        raise ValueError(f"backend {backend!r} is unknown; choose one of {', '.join(BACKENDS)}")
    if isinstance(iou_types, str) or not iou_types or set(iou_types) - set(IOU_TYPES):
        raise ValueError(f"iou_types {iou_types!r}: give one or both of {', '.join(IOU_TYPES)}")
    spec = parse_spec(data)
    if isinstance(spec, str):
        raise ValueError(f"{data!r} is not a data set; write coco:ANN.json or voc:ROOT:SPLIT")
    if isinstance(spec, VocSpec) and "segm" in iou_types:
        raise ValueError(f"{data} has boxes only; omit segm")
    masks = "segm" in iou_types
    truth = load_truth(spec, masks=masks, classes=classes)
    entries = _entries(truth, results, backend, masks)
    coco = {kind: coco_scores(truth, entries, kind, backend=backend) for kind in iou_types}
    if isinstance(spec, CocoSpec):
        return {"protocol": "coco", **coco}
    assert not isinstance(entries, Path)
    own = "voc07" if truth.voc_2007 else "voc10"
    by_name = {
        "coco": coco["bbox"],
        "voc07": _voc_scores(truth, entries, metric_2007=True),
        "voc10": _voc_scores(truth, entries, metric_2007=False),
    }
    return {"protocol": own, "bbox": by_name[own], **by_name}


def _entries(
    truth: Truth, results: Results, backend: str, masks: bool
) -> Path | list[dict[str, Any]]:
    """The results with the image numbers of ``truth``, or their file where it needs no change.

    hotcoco reads a file faster than Python. Where it finds an unknown image or category it only
    warns, so then the file is read here to name the entry. Masks are always read here.
    """
    if isinstance(results, str | PathLike):
        path = Path(results).expanduser()
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such file of results")
        plain = backend == "hotcoco" and not masks and not truth.renumbered
        if plain and _is_plain(truth, path):
            return path
        entries, where = _read(path), str(path)
    else:
        entries, where = list(results), "results"
    categories = {category["id"] for category in truth.content["categories"]}
    sizes = {i["id"]: [i.get("height"), i.get("width")] for i in truth.content["images"]}
    checked = []
    for index, entry in enumerate(entries):
        at = f"{where}: entry {index}"
        if not isinstance(entry, Mapping):
            raise ValueError(f"{at} is not an object")
        box = entry.get("bbox")
        if isinstance(box, np.ndarray | tuple):
            entry = {**entry, "bbox": [float(number) for number in box]}
        check_object(at, entry, truth.image_numbers, categories)
        if not is_number(entry.get("score")) and not isinstance(entry.get("score"), np.number):
            raise ValueError(f"{at} has the score {entry.get('score')!r}, not a finite number")
        number = truth.image_numbers[entry["image_id"]]
        if masks:
            check_mask(at, entry.get("segmentation"), "bitmask", sizes[number])
        checked.append({**entry, "image_id": number, "score": float(entry["score"])})
    return checked


def _is_plain(truth: Truth, path: Path) -> bool:
    """Whether hotcoco finds nothing wrong with a file of results."""
    import hotcoco

    gt = hotcoco.COCO({**truth.content, "annotations": []})
    try:
        found = gt.load_res(str(path))
    except (ValueError, OSError, RuntimeError, KeyError):
        return False
    if not path.read_bytes().lstrip().startswith(b"["):  # hotcoco also takes a whole data set
        return False
    number = len(found.get_ann_ids())
    # A result without a box has no area, and one without a score is a finding of its own.
    boxes = len(found.get_ann_ids(area_rng=[-1, math.inf]))
    codes = {finding["code"] for finding in gt.healthcheck(found)["warnings"]}
    sound = not found.load_warnings and "dt_missing_score" not in codes
    return sound and 0 < number == boxes


def _read(path: Path) -> list[Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(content, list):
        raise ValueError(f"{path} is not a list of results")
    return content


def _voc_scores(
    truth: Truth, entries: Sequence[Mapping[str, Any]], *, metric_2007: bool
) -> dict[str, Any]:
    assert truth.voc is not None
    images = np.array([entry["image_id"] for entry in entries], dtype=np.int64) - 1
    labels = np.array([entry["category_id"] for entry in entries], dtype=np.int64)
    scores = np.array([entry["score"] for entry in entries], dtype=np.float64)
    boxes = np.array([entry["bbox"] for entry in entries], dtype=np.float64).reshape(-1, 4)
    # x, y, width, height from 0 -> corners from 1, the last pixel included
    corners = np.concatenate([boxes[:, :2] + 1, boxes[:, :2] + boxes[:, 2:]], axis=1)
    per_class: dict[str, float | None] = {}
    found = []
    for number, name in enumerate(truth.classes, start=1):
        of = labels == number
        aps = voc_ap(truth.voc, images[of], corners[of], scores[of], name, metric_2007=metric_2007)
        per_class[name] = None if aps is None else float(100 * aps[0])
        if aps is not None:
            found.append(100 * aps)
    means = np.mean(found, axis=0) if found else None
    values = (means.mean(), means[0], means[5]) if means is not None else (None,) * 3
    named = zip(("AP", "AP50", "AP75"), values, strict=True)
    scores_by_name: dict[str, Any] = {k: None if v is None else float(v) for k, v in named}
    return {**scores_by_name, "APs": None, "APm": None, "APl": None, "per_class": per_class}
