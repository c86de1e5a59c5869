"""Which classes a detector has, and how data sets are mapped to them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_coco_instances
from settled import changed_coco, new_name, settle

from d2_transfer.config import get_cfg
from d2_transfer.data.registry import register_custom
from d2_transfer.data.settle import settle_datasets

CLASSES = ["square", "bar"]


@pytest.mark.parametrize("head", ["ROI_HEADS", "RETINANET"])
def test_classes_are_counted_where_no_number_is_given(scenes: Any, head: str) -> None:
    name, key = new_name(), f"MODEL.{head}.NUM_CLASSES"
    register_custom([scenes.coco(name)])
    model = {"MODEL.META_ARCHITECTURE": "RetinaNet"} if head == "RETINANET" else {}
    cfg = settle((name,), (name,), **model)
    assert (cfg.MODEL.ROI_HEADS.NUM_CLASSES, cfg.MODEL.RETINANET.NUM_CLASSES) == (2, 2)
    assert cfg.DATASETS.CLASSES == CLASSES
    assert settle((name,), **model, **{key: 2}).DATASETS.CLASSES == CLASSES
    with pytest.raises(ValueError, match=f"{key} 80 contradicts DATASETS.TRAIN, .* 2 classes"):
        settle((name,), (name,), **model, **{key: 80})


def test_one_change_ends_a_contradiction(scenes: Any, tmp_path: Path) -> None:
    """Test data that lack a class do not ask for another number than the training data."""
    train = new_name()
    test = changed_coco(scenes, tmp_path, squares_only)
    register_custom([scenes.coco(train), test])
    message = (
        r"^MODEL.ROI_HEADS.NUM_CLASSES 1 contradicts DATASETS.TRAIN, which has 2 classes"
        r" \(square, bar\): omit it, since the classes are counted$"
    )
    with pytest.raises(ValueError, match=message):
        settle((train,), (test["NAME"],), **{"MODEL.ROI_HEADS.NUM_CLASSES": 1})
    assert settle((train,), (test["NAME"],)).MODEL.ROI_HEADS.NUM_CLASSES == 2


def test_test_data_alone_do_not_say_what_the_model_has(scenes: Any, tmp_path: Path) -> None:
    test = changed_coco(scenes, tmp_path, squares_only)
    register_custom([test])
    model = {"MODEL.ROI_HEADS.NUM_CLASSES": 2}
    with pytest.raises(ValueError, match="set DATASETS.CLASSES to the names of the model's 2 clas"):
        settle((), (test["NAME"],), eval_only=True, **model)
    names = {"DATASETS.CLASSES": ["bar", "square"]}
    settle((), (test["NAME"],), eval_only=True, **model, **names)
    things = [a for r in DatasetCatalog.get(test["NAME"]) for a in r["annotations"]]
    assert {thing["category_id"] for thing in things} == {1}


def reverse(content: dict[str, Any]) -> None:
    """The ids of the two categories are exchanged."""
    for category in content["categories"]:
        category["id"] = 30 - category["id"]
    for annotation in content["annotations"]:
        annotation["category_id"] = 30 - annotation["category_id"]


def squares_only(content: dict[str, Any]) -> None:
    """The second class is missing."""
    content["annotations"] = [a for a in content["annotations"] if a["category_id"] == 10]
    del content["categories"][1]


@pytest.mark.parametrize("change", [reverse, squares_only])
def test_test_data_are_mapped_to_the_classes_by_name(
    scenes: Any, tmp_path: Path, change: Any
) -> None:
    train, test = new_name(), changed_coco(scenes, tmp_path, change)
    register_custom([scenes.coco(train), test])
    assert settle((train,), (test["NAME"],)).DATASETS.CLASSES == CLASSES
    assert MetadataCatalog.get(test["NAME"]).thing_classes == CLASSES
    records = DatasetCatalog.get(test["NAME"])
    for record, expected in zip(records, DatasetCatalog.get(train), strict=True):
        pairs = [(a["category_id"], a["bbox"]) for a in expected["annotations"]]
        kept = [pair for pair in pairs if change is reverse or pair[0] == 0]
        assert [(a["category_id"], a["bbox"]) for a in record["annotations"]] == kept


def test_test_data_with_a_class_that_the_training_data_lack(scenes: Any, tmp_path: Path) -> None:
    train = new_name()
    test = changed_coco(scenes, tmp_path, lambda c: c["categories"][1].update(name="disc"))
    register_custom([scenes.coco(train), test])
    with pytest.raises(ValueError, match="has the class 'disc', which is not among square, bar"):
        settle((train,), (test["NAME"],))


def test_training_sets_have_the_union_of_their_classes(scenes: Any, tmp_path: Path) -> None:
    one = new_name()
    two = changed_coco(scenes, tmp_path, lambda c: c["categories"][0].update(name="disc"))
    register_custom([scenes.coco(one), two])
    assert settle((one, two["NAME"])).DATASETS.CLASSES == ["square", "bar", "disc"]
    numbers = {a["category_id"] for r in DatasetCatalog.get(two["NAME"]) for a in r["annotations"]}
    assert numbers == {1, 2}


def test_the_classes_of_an_evaluation(scenes: Any, tmp_path: Path) -> None:
    name = new_name()
    register_custom([scenes.coco(name)])
    assert settle((), (name,), eval_only=True).DATASETS.CLASSES == CLASSES
    stored = get_cfg()
    stored.DATASETS.CLASSES = ["disc", "bar", "square"]
    (tmp_path / "config.yaml").write_text(stored.dump())
    cfg = get_cfg()
    cfg.MODEL.MASK_ON, cfg.DATASETS.TEST = False, (name,)
    settle_datasets(cfg, eval_only=True, weights=str(tmp_path / "model_final.pth"))
    assert cfg.DATASETS.CLASSES == ["disc", "bar", "square"]
    assert cfg.MODEL.ROI_HEADS.NUM_CLASSES == 3
    assert DatasetCatalog.get(name)[0]["annotations"][0]["category_id"] == 2


def test_data_that_detectron2_reads_fix_the_classes(scenes: Any) -> None:
    theirs, other, own = new_name(), new_name(), new_name()
    for name, classes in ((theirs, ["bar", "square"]), (other, ["square", "bar"])):
        metadata = {"thing_classes": classes}
        register_coco_instances(name, metadata, str(scenes.root / "coco.json"), str(scenes.root))
    register_custom([scenes.coco(own)])
    assert settle((theirs, own)).DATASETS.CLASSES == ["bar", "square"]
    assert DatasetCatalog.get(own)[0]["annotations"][0]["category_id"] == 1
    with pytest.raises(ValueError, match=f"DATASETS.CLASSES square, bar are not .* of '{theirs}'"):
        settle((theirs, own), **{"DATASETS.CLASSES": CLASSES})
    with pytest.raises(ValueError, match=f"'{theirs}' and '{other}' have different classes"):
        settle((theirs, other))


def test_data_without_class_names_need_a_number(scenes: Any) -> None:
    name = new_name()
    register_coco_instances(name, {}, str(scenes.root / "coco.json"), str(scenes.root))
    with pytest.raises(ValueError, match="does not name its classes: set MODEL.*NUM_CLASSES"):
        settle((name,))
    settle((name,), **{"MODEL.ROI_HEADS.NUM_CLASSES": 2})
