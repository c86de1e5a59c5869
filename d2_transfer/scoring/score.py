"""`score`: AP of detections from any framework, by COCO's metric and by VOC's."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np

from d2_transfer.data.large_json import paused_garbage_collection
from d2_transfer.data.spec import VocSpec, parse_spec
from d2_transfer.scoring.coco import BACKENDS, coco_scores
from d2_transfer.scoring.results import Detections, Results, read_results
from d2_transfer.scoring.truth import Truth, load_truth
from d2_transfer.scoring.voc import voc_arrays, voc_scores

logger = logging.getLogger(__name__)

IOU_TYPES = ("bbox", "segm")


@paused_garbage_collection()
def score(
    data: str,
    results: Results,
    iou_types: Sequence[str] = ("bbox",),
    *,
    classes: Sequence[str] | None = None,
    backend: str = "hotcoco",
) -> dict[str, Any]:
    """Scores detections by the objects that `load_annotated` gives. No model is needed.

    Where the images are at hand, their sizes and orientations count, and results on images that
    cannot be read are dropped. What is mended or skipped is logged.

    Args:
        data: ``coco:ANN.json[:IMAGES]``, ``voc:ROOT:SPLIT``, ``yolo:DATA.yaml:SPLIT``, or a name:
            one of Detectron2's for COCO and VOC, whose files are in the folder
            ``DETECTRON2_DATASETS``, or one of DATASETS.CUSTOM that this process has registered.
        results: detections in COCO's results format, a file or its entries: image_id, category_id,
            bbox (x, y, width, height in pixels from 0) and score, and segmentation for masks. For
            VOC data, image_id is the name in the list and category_id counts from 1. For YOLO data,
            image_id is the file name without suffix, and category_id counts from 1 as well.
        iou_types: "bbox", "segm" or both.
        classes: names of the classes of VOC data, in the order of category_id; None: those of the
            named data set, VOC's twenty if all names are among them, or those that occur, sorted.
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
    truth = named_truth(data, iou_types, classes)
    detections = read_results(truth, results, backend=backend, masks="segm" in iou_types)
    return score_detections(truth, detections, iou_types, backend=backend)


def named_truth(data: str, iou_types: Sequence[str], classes: Sequence[str] | None) -> Truth:
    """The annotations of the data set that `score` is given; what is mended or skipped is logged.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: malformed annotations, or no such data or ``iou_types``.
    """
    if isinstance(iou_types, str) or not iou_types or set(iou_types) - set(IOU_TYPES):
        raise ValueError(f"iou_types {iou_types!r}: give one or both of {', '.join(IOU_TYPES)}")
    spec = parse_spec(data)
    masks = "segm" in iou_types
    if isinstance(spec, VocSpec) and masks:
        raise ValueError(f"{data} has boxes only; omit segm")
    truth = load_truth(spec, masks=masks, classes=classes)
    if truth.findings.changed:
        logger.warning(truth.findings.as_text())
    return truth


def score_detections(
    truth: Truth,
    detections: Detections,
    iou_types: Sequence[str],
    *,
    backend: str,
    corners: np.ndarray | None = None,
) -> dict[str, Any]:
    """Scores checked detections.

    Args:
        truth: the annotations.
        detections: what `read_results` or `check_results` returns.
        iou_types: "bbox", "segm" or both.
        backend: of COCO's metric.
        corners: (n, 4), the boxes as VOC has them: x0, y0, x1, y1, pixels counted from 1 and x1, y1
            included; None: made of the entries.

    Returns:
        As `score`.
    """
    coco = coco_scores(truth, detections, iou_types, backend=backend)
    if truth.voc is None:
        return {"protocol": truth.protocol, **coco}
    arrays = voc_arrays(detections, corners)
    by_name = {"coco": coco["bbox"], **voc_scores(truth.voc, truth.classes, **arrays)}
    return {"protocol": truth.protocol, "bbox": by_name[truth.protocol], **by_name}
