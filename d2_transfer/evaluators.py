"""The evaluator of a data set, chosen by the kind that it was registered with."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.evaluation import COCOEvaluator, DatasetEvaluator, PascalVOCDetectionEvaluator
from detectron2.evaluation.pascal_voc_evaluation import parse_rec
from detectron2.utils import comm

logger = logging.getLogger(__name__)


def build_evaluator(cfg: CfgNode, dataset_name: str) -> DatasetEvaluator:
    """Makes the evaluator of one data set.

    Args:
        cfg: reads ``OUTPUT_DIR`` and ``MODEL.MASK_ON``.
        dataset_name: a registered name.

    Returns:
        Its ``evaluate()`` gives ``{"bbox": {"AP": ..., "AP50": ..., "AP75": ...}}`` in percent, and
        the same under ``"segm"`` where the model predicts masks.

    Raises:
        ValueError: the data set is of a kind for which no evaluator is known.
    """
    kind = MetadataCatalog.get(dataset_name).get("evaluator_type")
    if kind not in _BUILDERS:
        raise ValueError(
            f"DATASETS.TEST: no evaluator for {dataset_name!r} of kind {kind!r}; known kinds:"
            f" {', '.join(_BUILDERS)}"
        )
    return _BUILDERS[kind](cfg, dataset_name)


class VOCEvaluator(PascalVOCDetectionEvaluator):
    """Detectron2's VOC evaluation, with the mean taken over the classes that occur in the split.

    A class without a single object has no AP; upstream counts it as 0, or, with the metric of 2012,
    makes the mean NaN. Where all classes occur, as in VOC's own splits, the numbers are upstream's.
    """

    def __init__(self, dataset_name: str) -> None:
        super().__init__(dataset_name)
        with open(self._image_set_path, encoding="utf-8") as file:
            ids = [line.strip() for line in file]
        names = {
            thing["name"]
            for image_id in ids
            for thing in parse_rec(self._anno_file_template.format(image_id))
            if not thing["difficult"]
        }
        self._absent = [i for i, name in enumerate(self._class_names) if name not in names]

    def evaluate(self) -> dict[str, dict[str, float]] | None:
        # Without predictions, upstream gives an absent class an AP of exactly 0 in either metric;
        # the scaling below takes these zeros out of the mean.
        for class_id in self._absent:
            self._predictions.pop(class_id, None)
        results = super().evaluate()
        if not comm.is_main_process():
            return None
        if self._absent:
            absent = ", ".join(self._class_names[i] for i in self._absent)
            logger.info(f"{self._dataset_name}: no objects of {absent}; not part of the mean AP")
        num_classes = len(self._class_names)
        num_present = num_classes - len(self._absent)
        scale = num_classes / num_present if num_present else float("nan")
        return {"bbox": {name: float(ap) * scale for name, ap in results["bbox"].items()}}


def _coco(cfg: CfgNode, dataset_name: str) -> DatasetEvaluator:
    # Stated, since upstream infers the tasks from predictions, which may be empty.
    tasks = ("bbox", "segm") if cfg.MODEL.MASK_ON else ("bbox",)
    return COCOEvaluator(
        dataset_name,
        tasks=tasks,
        output_dir=os.path.join(cfg.OUTPUT_DIR, "inference", dataset_name),
    )


def _voc(cfg: CfgNode, dataset_name: str) -> DatasetEvaluator:
    return VOCEvaluator(dataset_name)


_BUILDERS: dict[str, Callable[[CfgNode, str], DatasetEvaluator]] = {
    "coco": _coco,
    "pascal_voc": _voc,
}
