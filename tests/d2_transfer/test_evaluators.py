"""Evaluators: chosen by kind, and right on predictions whose AP is known."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import COCOEvaluator, DatasetEvaluator, PascalVOCDetectionEvaluator
from detectron2.structures import Boxes, BoxMode, Instances

from d2_transfer.config import get_cfg
from d2_transfer.data.registry import register_custom
from d2_transfer.evaluators import VOCEvaluator, build_evaluator

# Detectron2's own, on this stack.
pytestmark = pytest.mark.filterwarnings("ignore:The 'warn' method is deprecated")

_numbers = itertools.count()


def register(entry: Callable[..., dict[str, Any]], **options: Any) -> str:
    name = f"evaluated_{next(_numbers)}"
    register_custom([entry(name, **options)])
    return name


def evaluate(evaluator: DatasetEvaluator, name: str, shift: float = 0.0, only: int = -1) -> Any:
    """AP of predictions that are the ground truth, moved ``shift`` pixels to the right."""
    evaluator.reset()
    for record in DatasetCatalog.get(name):
        objects = [o for o in record["annotations"] if only in (-1, o["category_id"])]
        boxes = [BoxMode.convert(o["bbox"], o["bbox_mode"], BoxMode.XYXY_ABS) for o in objects]
        instances = Instances((record["height"], record["width"]))
        instances.pred_boxes = Boxes(
            torch.tensor(boxes).reshape(-1, 4) + torch.tensor([shift, 0] * 2)
        )
        instances.scores = torch.full((len(objects),), 0.9)
        instances.pred_classes = torch.tensor([o["category_id"] for o in objects]).long()
        evaluator.process([record], [{"instances": instances}])
    return evaluator.evaluate()


def config(tmp_path: Path, masks: bool = False) -> Any:
    cfg = get_cfg()
    cfg.OUTPUT_DIR = str(tmp_path)
    cfg.MODEL.MASK_ON = masks
    return cfg


@pytest.mark.parametrize("year", [2007, 2012])
def test_voc(scenes: Any, tmp_path: Path, year: int) -> None:
    name = register(scenes.voc, YEAR=year)
    evaluator = build_evaluator(config(tmp_path), name)
    assert isinstance(evaluator, VOCEvaluator)
    assert evaluate(evaluator, name)["bbox"] == pytest.approx({"AP": 100, "AP50": 100, "AP75": 100})
    # Moved by 4, squares of 20x20 have an IoU of 320/480 = 0.67, bars of 28x10 exactly 0.75, and
    # VOC wants more than the threshold: .50 .55 .60 .65 for both classes, .70 for the bars only.
    moved = evaluate(evaluator, name, shift=4)["bbox"]
    assert moved == pytest.approx({"AP": (4 + 0.5) * 10, "AP50": 100, "AP75": 0})
    assert all(type(value) is float for value in moved.values())


def test_voc_is_upstreams_where_all_classes_occur(scenes: Any, tmp_path: Path) -> None:
    name = register(scenes.voc, YEAR=2012)
    for shift, only in itertools.product((0, 3, 5), (-1, 0, 1)):
        ours = evaluate(build_evaluator(config(tmp_path), name), name, shift, only)
        upstream = evaluate(PascalVOCDetectionEvaluator(name), name, shift, only)
        assert ours == upstream


@pytest.mark.parametrize("year", [2007, 2012])
def test_voc_leaves_absent_classes_out_of_the_mean(scenes: Any, tmp_path: Path, year: int) -> None:
    # Split "one" has squares only; "bar" and "disc" do not occur.
    name = register(scenes.voc, split="one", YEAR=year, CLASSES=["square", "bar", "disc"])
    evaluator = build_evaluator(config(tmp_path), name)
    assert evaluate(evaluator, name)["bbox"]["AP50"] == pytest.approx(100)
    # A false alarm of an absent class, which makes upstream's mean of 2012 NaN.
    evaluator.reset()
    alarm = Instances((64, 64))
    alarm.pred_boxes = Boxes(torch.tensor([[1.0, 1.0, 9.0, 9.0]]))
    alarm.scores, alarm.pred_classes = torch.tensor([0.9]), torch.tensor([1])
    evaluator.process(DatasetCatalog.get(name), [{"instances": alarm}])
    assert evaluator.evaluate()["bbox"]["AP50"] == 0


def test_voc_without_any_object(own_scenes: Any, tmp_path: Path) -> None:
    path = own_scenes.root / "Annotations" / "000000.xml"
    path.write_text(path.read_text().replace("<difficult>0", "<difficult>1"))
    name = register(own_scenes.voc, split="one")
    result = evaluate(build_evaluator(config(tmp_path), name), name)
    assert all(math.isnan(value) for value in result["bbox"].values())


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_coco(scenes: Any, tmp_path: Path) -> None:
    name = register(scenes.coco)
    evaluator = build_evaluator(config(tmp_path), name)
    assert isinstance(evaluator, COCOEvaluator)
    result = evaluate(evaluator, name)["bbox"]
    assert (result["AP"], result["AP-square"], result["AP-bar"]) == pytest.approx((100, 100, 100))
    # As above, but COCO is content with the threshold itself: .75 for the bars, too.
    moved = evaluate(evaluator, name, shift=4)["bbox"]
    assert (moved["AP"], moved["AP-square"], moved["AP-bar"]) == pytest.approx((50, 40, 60))
    assert (tmp_path / "inference" / name / "coco_instances_results.json").is_file()


def test_coco_without_predictions_still_reports_masks(scenes: Any, tmp_path: Path) -> None:
    name = register(scenes.coco)
    evaluator = build_evaluator(config(tmp_path, masks=True), name)
    result = evaluate(evaluator, name, only=5)  # no such class
    assert set(result) == {"bbox", "segm"}
    assert math.isnan(result["segm"]["AP"])


def test_an_unknown_kind_is_an_error(tmp_path: Path) -> None:
    MetadataCatalog.get("of_another_kind").evaluator_type = "lvis"
    with pytest.raises(
        ValueError, match="no evaluator for 'of_another_kind' of kind 'lvis'; known"
    ):
        build_evaluator(config(tmp_path), "of_another_kind")
