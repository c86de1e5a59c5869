"""AP of detections: COCO's against pycocotools, VOC's against Detectron2's evaluator."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import hotcoco
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from benchmark_rows.detections import HEIGHT, WIDTH, coco_files, draw, voc_folder
from benchmark_rows.timing import Pair, Row
from d2_transfer.data.load import load_annotated
from d2_transfer.data.spec import VOC_CLASSES, VocSpec
from d2_transfer.scoring.coco import run
from d2_transfer.scoring.score import score

COCO_SIZE = (1500, 130_000)  # images, detections
VOC_SIZE = (5000, 150_000)
KINDS = ("bbox", "segm")


def rows() -> list[Row]:
    """COCO's metric from memory and from files, and VOC's."""
    what = f"{COCO_SIZE[0]:,} images, {COCO_SIZE[1]:,} detections"
    coco = [
        (f"evaluation: COCO boxes + masks, {what}, already loaded", _coco, KINDS, 50.0),
        (f"evaluation: COCO boxes, {what}, with reading the files", _coco_files, KINDS[:1], 30.0),
        (f"evaluation: COCO boxes + masks, {what}, with reading the files", _coco_files, KINDS, 30),
    ]
    voc = Row(
        name=f"evaluation: VOC, {VOC_SIZE[0]:,} images, {VOC_SIZE[1]:,} detections",
        against="Detectron2's PascalVOCDetectionEvaluator",
        prepare=_voc,
        amount=VOC_SIZE[0],
        unit="images",
        target=10,
        max_rounds=3,
    )
    return [
        *(
            Row(
                name=name,
                against="pycocotools",
                prepare=partial(prepare, kinds),
                amount=COCO_SIZE[0],
                unit="images",
                target=target,
                max_rounds=3,
            )
            for name, prepare, kinds, target in coco
        ),
        voc,
    ]


def _coco(kinds: Sequence[str]) -> Pair:
    """What both libraries have loaded is matched, accumulated and summarised: hotcoco alone."""
    files = {name: str(path) for name, path in coco_files(*COCO_SIZE).items()}
    ours = hotcoco.COCO(files["truth"])
    our_detections = ours.load_res(files["masks"])
    theirs, their_detections = _load_pycocotools(files["truth"], files["masks"])
    return (
        lambda: [run(hotcoco.COCOeval(ours, our_detections, kind)) for kind in kinds],
        lambda: [run(COCOeval(theirs, their_detections, kind)) for kind in kinds],
    )


def _coco_files(kinds: Sequence[str]) -> Pair:
    files = coco_files(*COCO_SIZE)
    truth, results = files["truth"], files["masks" if "segm" in kinds else "boxes"]

    def a() -> None:
        score(f"coco:{truth}", results, kinds)

    def b() -> None:
        loaded = _load_pycocotools(str(truth), str(results))
        for kind in kinds:
            run(COCOeval(*loaded, kind))

    return a, b


def _load_pycocotools(truth: str, results: str) -> tuple[COCO, COCO]:
    with contextlib.redirect_stdout(io.StringIO()):
        gt = COCO(truth)
        return gt, gt.loadRes(results)


def _voc() -> Pair:
    """The evaluators of `train_net` and of Detectron2, which have collected a model's detections.

    Ours also computes COCO's metric, both of VOC's, and writes its files. Both have read the XML
    files before.
    """
    # Here, so that the other rows need no Detectron2.
    from detectron2.data import DatasetCatalog, MetadataCatalog  # noqa: PLC0415
    from detectron2.evaluation import PascalVOCDetectionEvaluator  # noqa: PLC0415

    from d2_transfer.evaluators import ScoringEvaluator  # noqa: PLC0415

    logging.getLogger("d2_transfer").setLevel(logging.WARNING)
    root = voc_folder(*VOC_SIZE, VOC_CLASSES)
    name = "benchmark_voc"
    if name not in DatasetCatalog:
        DatasetCatalog.register(name, list)
        MetadataCatalog.get(name).set(
            dirname=str(root), split="all", year=2007, thing_classes=list(VOC_CLASSES)
        )
    loaded = load_annotated(VocSpec(root, "all", 2007, VOC_CLASSES), need_images=False)
    evaluators = (
        ScoringEvaluator(loaded, ("bbox",), backend="hotcoco", folder=Path(root, "scores")),
        PascalVOCDetectionEvaluator(name),
    )
    for evaluator in evaluators:
        evaluator.reset()
        _process(evaluator)
    return evaluators[0].evaluate, evaluators[1].evaluate


def _process(evaluator: Any) -> None:
    from detectron2.structures import Boxes, Instances  # noqa: PLC0415

    for number, (_, found, scores) in enumerate(draw(*VOC_SIZE, len(VOC_CLASSES))):
        corners = torch.tensor(found[:, :4], dtype=torch.float32)
        corners[:, 2:] += corners[:, :2]
        values: dict[str, Any] = {
            "pred_boxes": Boxes(corners),
            "pred_classes": torch.tensor(found[:, 4]).long(),
            "scores": torch.tensor(scores, dtype=torch.float32),
        }
        record = {"image_id": f"{number:06d}"}
        evaluator.process([record], [{"instances": Instances((HEIGHT, WIDTH), **values)}])
