"""Evaluators: as Detectron2's own, and right on predictions whose AP is known."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from annotated_sets import yolo_set
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import COCOEvaluator, DatasetEvaluator, PascalVOCDetectionEvaluator
from detectron2.structures import Boxes, BoxMode, Instances

import d2_transfer
from d2_transfer.config import get_cfg
from d2_transfer.data.registry import Reading, register_custom, register_named, use_reading
from d2_transfer.evaluators import ScoringEvaluator, build_evaluator

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


def noisy(name: str, seed: int, *, masks: bool) -> list[tuple[dict[str, Any], Instances]]:
    """Predictions near the objects: boxes, classes and scores as arbitrary as a model's."""
    generator = torch.Generator().manual_seed(seed)
    predictions = []
    for record in DatasetCatalog.get(name):
        objects = record["annotations"] * 6
        side = record["height"]
        boxes = [BoxMode.convert(o["bbox"], o["bbox_mode"], BoxMode.XYXY_ABS) for o in objects]
        moved = torch.tensor(boxes, dtype=torch.float32)
        moved = (moved + 2.5 * torch.randn(moved.shape, generator=generator)).clamp(0, side)
        wrong = torch.rand(len(objects), generator=generator) < 0.3
        labels = torch.tensor([o["category_id"] for o in objects])
        instances = Instances((side, record["width"]))
        instances.pred_boxes = Boxes(moved)
        instances.scores = torch.rand(len(objects), generator=generator)
        instances.pred_classes = torch.where(wrong, 1 - labels, labels)
        if masks:
            y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
            x0, y0, x1, y1 = (moved.T[..., None, None] + 0.5).floor()
            # Smaller than its box, so that some are of another size than that.
            inside = (x >= x0 + 2) & (x < x1) & (y >= y0) & (y < y1 - 2)
            instances.pred_masks = inside
        predictions.append((record, instances))
    return predictions


def run(evaluator: DatasetEvaluator, found: list[tuple[dict[str, Any], Instances]]) -> Any:
    evaluator.reset()
    for record, instances in found:
        evaluator.process([record], [{"instances": instances}])
    return evaluator.evaluate()


def config(tmp_path: Path, masks: bool = False, backend: str = "hotcoco") -> Any:
    cfg = get_cfg()
    cfg.OUTPUT_DIR = str(tmp_path)
    cfg.MODEL.MASK_ON = masks
    cfg.TEST.COCO_BACKEND = backend
    return cfg


@pytest.mark.parametrize("backend", ["hotcoco", "pycocotools"])
@pytest.mark.parametrize("seed", range(3))
def test_coco_is_detectron2s(scenes: Any, tmp_path: Path, backend: str, seed: int) -> None:
    name = register(scenes.coco)
    found = noisy(name, seed, masks=True)
    evaluator = build_evaluator(config(tmp_path / "ours", masks=True, backend=backend), name)
    ours = run(evaluator, found)
    theirs = run(COCOEvaluator(name, ("bbox", "segm"), output_dir=str(tmp_path)), found)
    for kind in ("bbox", "segm"):
        assert list(ours[kind]) == list(theirs[kind])
        assert 5 < ours[kind]["AP"] < 95
        assert ours[kind] == pytest.approx(theirs[kind], abs=1e-9, nan_ok=True)
    files = [f / "coco_instances_results.json" for f in (tmp_path, evaluator._folder)]
    assert json.loads(files[0].read_text()) == json.loads(files[1].read_text())
    # The same numbers from the file.
    stored = json.loads((evaluator._folder / "scores.json").read_text())
    assert stored == d2_transfer.score(name, files[1], ("bbox", "segm"), backend=backend)


@pytest.mark.parametrize("year", [2007, 2012])
@pytest.mark.parametrize("seed", range(4))
def test_voc_is_detectron2s(own_scenes: Any, tmp_path: Path, year: int, seed: int) -> None:
    for number in (1, 3):  # some objects are difficult
        path = own_scenes.root / "Annotations" / f"{number:06d}.xml"
        path.write_text(path.read_text().replace("<difficult>0", "<difficult>1", 1))
    name = register(own_scenes.voc, YEAR=year)
    found = noisy(name, seed, masks=False)
    ours = run(build_evaluator(config(tmp_path), name), found)
    theirs = run(PascalVOCDetectionEvaluator(name), found)
    assert 5 < ours["bbox"]["AP"] < 95
    assert ours["bbox"] == pytest.approx(theirs["bbox"], abs=1e-9)
    assert list(ours) == ["bbox", "coco", "voc07", "voc10"]
    assert ours["bbox"] == ours["voc07" if year == 2007 else "voc10"]
    assert ours["voc07"] != ours["voc10"]


def test_difficult_objects_count_in_cocos_metric_only(own_scenes: Any, tmp_path: Path) -> None:
    name = register(own_scenes.voc)
    before = evaluate(build_evaluator(config(tmp_path), name), name, only=0)
    for path in (own_scenes.root / "Annotations").iterdir():  # all bars
        head, _, tail = path.read_text().rpartition("<difficult>0")
        if "bar" in head:
            path.write_text(f"{head}<difficult>1{tail}")
    after = evaluate(build_evaluator(config(tmp_path), name), name, only=0)
    assert before["voc07"]["AP"] == pytest.approx(50) and after["voc07"]["AP"] == pytest.approx(100)
    assert before["coco"]["AP"] == after["coco"]["AP"] == pytest.approx(50)


@pytest.mark.parametrize("year", [2007, 2012])
def test_voc(scenes: Any, tmp_path: Path, year: int) -> None:
    name = register(scenes.voc, YEAR=year)
    evaluator = build_evaluator(config(tmp_path), name)
    assert isinstance(evaluator, ScoringEvaluator)
    assert evaluate(evaluator, name)["bbox"] == pytest.approx({"AP": 100, "AP50": 100, "AP75": 100})
    # Moved by 4, squares of 20x20 have an IoU of 320/480 = 0.67, bars of 28x10 exactly 0.75, and
    # VOC wants more than the threshold: .50 .55 .60 .65 for both classes, .70 for the bars only.
    moved = evaluate(evaluator, name, shift=4)
    assert moved["bbox"] == pytest.approx({"AP": (4 + 0.5) * 10, "AP50": 100, "AP75": 0})
    assert all(type(value) is float for table in moved.values() for value in table.values())
    # COCO is content with the threshold itself: .75 for the bars, too.
    assert moved["coco"]["AP"] == pytest.approx(50)
    assert moved["coco"]["AP-bar"] == pytest.approx(60)


def test_voc_is_upstreams_where_all_classes_occur(scenes: Any, tmp_path: Path) -> None:
    name = register(scenes.voc, YEAR=2012)
    for shift, only in itertools.product((0, 3, 5), (-1, 0, 1)):
        ours = evaluate(build_evaluator(config(tmp_path), name), name, shift, only)
        upstream = evaluate(PascalVOCDetectionEvaluator(name), name, shift, only)
        assert ours["bbox"] == pytest.approx(upstream["bbox"], abs=1e-9)


@pytest.mark.parametrize("year", [2007, 2012])
def test_voc_leaves_absent_classes_out_of_the_mean(scenes: Any, tmp_path: Path, year: int) -> None:
    # Split "one" has squares only; "bar" and "disc" do not occur.
    name = register(scenes.voc, split="one", YEAR=year, CLASSES=["square", "bar", "disc"])
    evaluator = build_evaluator(config(tmp_path), name)
    found = evaluate(evaluator, name)
    assert [found[table]["AP50"] for table in ("bbox", "coco")] == pytest.approx([100, 100])
    assert math.isnan(found["coco"]["AP-bar"])
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


def test_coco(scenes: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    name = register(scenes.coco)
    evaluator = build_evaluator(config(tmp_path), name)
    assert isinstance(evaluator, ScoringEvaluator)
    result = evaluate(evaluator, name)["bbox"]
    assert (result["AP"], result["AP-square"], result["AP-bar"]) == pytest.approx((100, 100, 100))
    # As above, but COCO is content with the threshold itself: .75 for the bars, too.
    caplog.clear()
    caplog.set_level("INFO", "d2_transfer")
    moved = evaluate(evaluator, name, shift=4)["bbox"]
    assert (moved["AP"], moved["AP-square"], moved["AP-bar"]) == pytest.approx((50, 40, 60))
    assert (tmp_path / "inference" / name / "coco_instances_results.json").is_file()
    assert "| bbox (coco) | 50.00 |" in caplog.text


@pytest.mark.parametrize("backend", ["hotcoco", "pycocotools"])
def test_without_predictions_ap_is_0(scenes: Any, tmp_path: Path, backend: str) -> None:
    name = register(scenes.coco)
    evaluator = build_evaluator(config(tmp_path, masks=True, backend=backend), name)
    result = evaluate(evaluator, name, only=5)  # no such class
    assert set(result) == {"bbox", "segm"}
    for table in result.values():
        assert table["AP"] == table["AP50"] == table["AP-square"] == 0
        assert math.isnan(table["APl"])  # there are no large objects
    name = register(scenes.voc)
    result = evaluate(build_evaluator(config(tmp_path, backend=backend), name), name, only=5)
    assert [result[table]["AP"] for table in ("bbox", "coco", "voc07", "voc10")] == [0] * 4


def test_data_without_annotations_have_their_detections_written(
    own_scenes: Any, tmp_path: Path
) -> None:
    """Such as COCO's test-dev, whose annotations are on a server."""
    name = register(own_scenes.coco)
    found = noisy(name, 0, masks=False)
    path = own_scenes.root / "coco.json"
    content = json.loads(path.read_text())
    del content["annotations"]
    path.write_text(json.dumps(content))
    assert run(build_evaluator(config(tmp_path), name), found) == {}
    written = json.loads(
        (tmp_path / "inference" / name / "coco_instances_results.json").read_text()
    )
    assert len(written) == sum(len(instances) for _, instances in found)
    assert {entry["category_id"] for entry in written} == {10, 20}
    with pytest.raises(ValueError, match="coco.json has no annotations"):
        d2_transfer.score(name, written)


@pytest.mark.parametrize("backend", ["hotcoco", "pycocotools"])
def test_classes_in_another_order_than_their_ids(
    own_scenes: Any, tmp_path: Path, backend: str
) -> None:
    name = register(own_scenes.coco)
    cfg = config(tmp_path, backend=backend)
    cfg.DATASETS.CLASSES = ["disc", "bar", "square"]
    use_reading([name], Reading.of(cfg))
    for only, expected in (
        (1, ["nan", "100", "0"]),
        (2, ["nan", "0", "100"]),
        (5, ["nan", "0", "0"]),
    ):
        result = evaluate(build_evaluator(cfg, name), name, only=only)["bbox"]
        values = [result[f"AP-{label}"] for label in cfg.DATASETS.CLASSES]
        assert [f"{value:.0f}" for value in values] == expected


@pytest.mark.parametrize("form", ["coco", "voc"])
def test_images_that_cannot_be_read_do_not_count(
    scenes: Any, tmp_path: Path, form: str, caplog: pytest.LogCaptureFixture
) -> None:
    name = register(getattr(scenes, form))
    evaluator = build_evaluator(config(tmp_path), name)
    evaluator.reset()
    caplog.set_level("WARNING", "d2_transfer")
    for number, record in enumerate(DatasetCatalog.get(name)):
        things = record["annotations"]
        instances = Instances((64, 64))
        instances.pred_boxes = Boxes(torch.tensor([thing["bbox"] for thing in things]))
        instances.scores = torch.full((len(things),), 0.9)
        instances.pred_classes = torch.tensor([thing["category_id"] for thing in things])
        if number == 2:
            record["unreadable"] = f"{record['file_name']}: damaged"
            instances.pred_boxes.tensor += 20
        evaluator.process([record], [{"instances": instances}])
    for table in evaluator.evaluate().values():
        assert table["AP"] == pytest.approx(100)
    assert "1 images could not be read and do not count; the first: " in caplog.text
    assert "000002.png: damaged" in caplog.text


def test_the_truth_scores_100_on_data_in_yolo_form(tmp_path: Path) -> None:
    yolo_set(tmp_path)
    name = f"yolo:{tmp_path}/data.yaml:train"
    register_named("DATASETS.TEST", [name])
    result = evaluate(build_evaluator(config(tmp_path), name), name)
    assert result["bbox"]["AP"] == pytest.approx(100)
    (folder,) = (tmp_path / "inference").iterdir()
    assert folder.name.startswith("yolo_") and (folder / "scores.json").is_file()


def test_objects_without_a_mask_are_ignored_in_the_ap_of_masks(
    own_scenes: Any, tmp_path: Path
) -> None:
    path = own_scenes.root / "coco.json"
    content = json.loads(path.read_text())
    content["annotations"][0]["segmentation"] = []
    path.write_text(json.dumps(content))
    name = register(own_scenes.coco)
    found = []
    for record in DatasetCatalog.get(name):  # the truth, but for the first object
        boxes = [thing["bbox"] for thing in record["annotations"]]
        boxes = boxes[1:] if record["image_id"] == 1 else boxes
        labels = [thing["category_id"] for thing in record["annotations"]][-len(boxes) :]
        instances = Instances((64, 64))
        instances.pred_boxes = Boxes(torch.tensor(boxes).reshape(-1, 4))
        instances.scores = torch.full((len(boxes),), 0.9)
        instances.pred_classes = torch.tensor(labels[: len(boxes)]).long()
        masks = torch.zeros(len(boxes), 64, 64, dtype=torch.bool)
        for mask, (x0, y0, x1, y1) in zip(masks, boxes, strict=True):
            mask[int(y0) : int(y1), int(x0) : int(x1)] = True
        instances.pred_masks = masks
        found.append((record, instances))
    result = run(build_evaluator(config(tmp_path, masks=True), name), found)
    assert result["segm"]["AP"] == pytest.approx(100)
    assert result["bbox"]["AP"] < 95


def test_proposals_are_evaluated_by_detectron2(scenes: Any, tmp_path: Path) -> None:
    name = register(scenes.coco)
    cfg = config(tmp_path)
    cfg.MODEL.META_ARCHITECTURE = "ProposalNetwork"
    evaluator = build_evaluator(cfg, name)
    evaluator.reset()
    for record, found in noisy(name, 0, masks=False):
        proposals = Instances(found.image_size)
        proposals.proposal_boxes, proposals.objectness_logits = found.pred_boxes, found.scores
        evaluator.process([record], [{"proposals": proposals}])
    assert evaluator.evaluate()["box_proposals"]["AR@100"] > 5


def test_an_unknown_kind_is_an_error(tmp_path: Path) -> None:
    MetadataCatalog.get("of_another_kind").evaluator_type = "lvis"
    with pytest.raises(
        ValueError, match="no evaluator for 'of_another_kind' of kind 'lvis'; known"
    ):
        build_evaluator(config(tmp_path), "of_another_kind")
