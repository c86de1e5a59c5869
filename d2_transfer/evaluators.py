"""The evaluator of a data set: Detectron2's interface, and the scores of `d2_transfer.scoring`."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.config import CfgNode
from detectron2.evaluation import COCOEvaluator, DatasetEvaluator
from detectron2.evaluation.coco_evaluation import instances_to_coco_json
from detectron2.utils import comm

from cwrgp.file_io.atomic import write_bytes
from d2_transfer.data.load import LoadedData, load_annotated
from d2_transfer.data.mapper import UNREADABLE
from d2_transfer.data.readers.coco_files import parse_coco
from d2_transfer.data.registry import (
    Reading,
    find_spec,
    is_kept,
    load_data,
    restrict,
    spec_of_metadata,
)
from d2_transfer.data.spec import CocoSpec, Spec, VocSpec, as_file_name
from d2_transfer.scoring.results import check_results
from d2_transfer.scoring.score import score_detections
from d2_transfer.scoring.tables import as_text
from d2_transfer.scoring.truth import make_truth

logger = logging.getLogger(__name__)

# In COCO's results format; and what `d2_transfer.score` gives for them.
DETECTIONS = "coco_instances_results.json"
SCORES = "scores.json"

_COCO_METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl")
_VOC_METRICS = ("AP", "AP50", "AP75")


def inference_folder(output_dir: Path, dataset_name: str) -> Path:
    """Where the evaluator of a data set writes `DETECTIONS` and `SCORES`."""
    return output_dir / "inference" / as_file_name(dataset_name)


def build_evaluator(cfg: CfgNode, dataset_name: str) -> DatasetEvaluator:
    """Makes the evaluator of one data set.

    Args:
        cfg: reads ``OUTPUT_DIR``, ``MODEL.META_ARCHITECTURE``, ``MODEL.MASK_ON`` and
            ``TEST.COCO_BACKEND``.
        dataset_name: a registered name.

    Returns:
        Its ``evaluate()`` gives tables of metrics in percent, under the names of
        `as_detectron2_results`. A model that makes proposals only has Detectron2's own evaluator.

    Raises:
        ValueError: the data set is of a kind for which no evaluator is known.
    """
    folder = inference_folder(Path(cfg.OUTPUT_DIR), dataset_name)
    spec = find_spec(dataset_name) or spec_of_metadata(dataset_name)
    if cfg.MODEL.META_ARCHITECTURE == "ProposalNetwork" and isinstance(spec, CocoSpec):
        return COCOEvaluator(dataset_name, tasks=("bbox",), output_dir=str(folder))
    masks = cfg.MODEL.MASK_ON and not isinstance(spec, VocSpec)
    iou_types = ("bbox", "segm") if masks else ("bbox",)
    data: LoadedData | Sequence[int] = []
    if comm.is_main_process():
        kept = is_kept(dataset_name, Reading.of(cfg))
        data = ([] if kept else _unlabelled_categories(spec)) or read_test_set(cfg, dataset_name)
    return ScoringEvaluator(data, iou_types, backend=cfg.TEST.COCO_BACKEND, folder=folder)


def read_test_set(cfg: CfgNode, dataset_name: str) -> LoadedData:
    """The annotations that the detections on a data set are scored by.

    Args:
        cfg: reads what `Reading.of` reads; ``DATASETS.CLASSES`` has the classes of the model.
        dataset_name: a registered name.

    Raises:
        FileNotFoundError: the annotations do not exist.
        ValueError: they cannot be used, or there are none.
    """
    reading = Reading.of(cfg)
    if find_spec(dataset_name) is not None:
        return load_data(dataset_name, reading)
    spec = spec_of_metadata(dataset_name)
    masks = reading.masks and not isinstance(spec, VocSpec)
    whole = load_annotated(spec, name=dataset_name, masks=masks, need_images=False)
    return restrict(dataset_name, whole)


def _unlabelled_categories(spec: Spec) -> list[int]:
    """The ids of the categories of a COCO file without annotations; otherwise []."""
    if not isinstance(spec, CocoSpec):
        return []
    content = parse_coco(spec.json_file)
    if "annotations" in content:
        return []
    return sorted(category["id"] for category in content["categories"])


class ScoringEvaluator(DatasetEvaluator):
    """Collects the detections of all processes, writes and scores them on the main process.

    ``folder`` gets the files `DETECTIONS` and `SCORES`. Images that could not be read are no
    part of either.

    Args:
        data: the annotations; of data without, the ids of the categories in the order of the
            classes, so that the detections are written only. Read on the main process only.
        iou_types: "bbox", "segm" or both.
        backend: of COCO's metric, "hotcoco" or "pycocotools".
        folder: for the files.
    """

    def __init__(
        self,
        data: LoadedData | Sequence[int],
        iou_types: Sequence[str],
        *,
        backend: str,
        folder: Path,
    ) -> None:
        self._iou_types, self._backend, self._folder = iou_types, backend, folder
        self._loaded = data if isinstance(data, LoadedData) else None
        self._truth = None if self._loaded is None else make_truth(self._loaded)
        self._categories = data.data.category_ids if isinstance(data, LoadedData) else data

    def reset(self) -> None:
        """Forgets all detections."""
        self._entries: list[dict[str, Any]] = []
        self._corners: list[np.ndarray] = []
        self._unreadable: dict[int | str, str] = {}

    def process(
        self, inputs: Sequence[Mapping[str, Any]], outputs: Sequence[Mapping[str, Any]]
    ) -> None:
        """Collects the detections of a batch."""
        for record, output in zip(inputs, outputs, strict=True):
            if UNREADABLE in record:
                self._unreadable[record["image_id"]] = record[UNREADABLE]
                continue
            instances = output["instances"].to("cpu")
            self._entries += instances_to_coco_json(instances, record["image_id"])
            self._corners.append(instances.pred_boxes.tensor.numpy())

    def evaluate(self) -> dict[str, dict[str, float]] | None:
        """Scores what all processes have collected.

        Returns:
            As `as_detectron2_results`; {} without annotations; None on all but the main process.
        """
        gathered = comm.gather((self._entries, self._corners, self._unreadable), dst=0)
        if not comm.is_main_process():
            return None
        unreadable = {number: why for _, _, found in gathered for number, why in found.items()}
        if unreadable:
            logger.warning(
                f"{len(unreadable)} images could not be read and do not count; the first:"
                f" {next(iter(unreadable.values()))}"
            )
        # Detectron2 numbers classes from 0.
        entries = [
            {**entry, "category_id": self._categories[entry["category_id"]]}
            for entry in chain.from_iterable(found for found, _, _ in gathered)
        ]
        self._write(DETECTIONS, entries)
        if self._loaded is None or self._truth is None:
            logger.info("The data set has no annotations: the detections are not scored")
            return {}
        truth = self._truth
        if unreadable:
            truth = make_truth(_without(self._loaded, unreadable))
        boxes = [box for _, of_images, _ in gathered for box in of_images]
        corners = np.concatenate([*boxes, np.zeros((0, 4), np.float32)])
        # VOC's first pixel is 1. Added in single precision, as Detectron2 does before it rounds.
        corners[:, :2] += 1
        checked = check_results(truth, entries, "detections", masks="segm" in self._iou_types)
        scores = score_detections(
            truth, checked, self._iou_types, backend=self._backend, corners=corners
        )
        self._write(SCORES, scores)
        logger.info(f"AP by COCO's metric is computed by {self._backend}\n{as_text(scores)}")
        return as_detectron2_results(scores)

    def _write(self, name: str, content: Any) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        write_bytes(self._folder / name, json.dumps(content).encode())
        logger.info(f"Written: {self._folder / name}")


def _without(loaded: LoadedData, unreadable: Mapping[int | str, str]) -> LoadedData:
    """The data without images that could not be read."""
    images = [image for image in loaded.data.images if image.id not in unreadable]
    return replace(
        loaded,
        data=replace(loaded.data, images=images),
        unreadable={**loaded.unreadable, **unreadable},
    )


def as_detectron2_results(scores: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """What `d2_transfer.score` returns, in the form of Detectron2's evaluators.

    Args:
        scores: of one data set.

    Returns:
        ``bbox``, and ``segm`` where masks are scored; for data in VOC form, ``bbox`` by the data
        set's own protocol, and ``coco``, ``voc07`` and ``voc10``. By COCO's metric, a table has AP,
        AP50, AP75, APs, APm, APl and, of two classes or more, AP-<class>; by VOC's, AP, AP50 and
        AP75. nan: there are no such objects.
    """
    results = {}
    for name, table in scores.items():
        if name == "protocol":
            continue
        metric = scores["protocol"] if name in ("bbox", "segm") else name
        named = {m: table[m] for m in (_COCO_METRICS if metric == "coco" else _VOC_METRICS)}
        if metric == "coco" and len(table["per_class"]) > 1:
            named |= {f"AP-{label}": ap for label, ap in table["per_class"].items()}
        results[name] = {m: math.nan if ap is None else ap for m, ap in named.items()}
    return results
