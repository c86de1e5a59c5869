"""Seeded, nested parts of a data set, from the choice to a run that trains on one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_coco_instances

import d2_transfer
from d2_transfer.config import get_cfg
from d2_transfer.data.registry import register_custom, register_subsets, write_subsets
from d2_transfer.data.subsets import choose_images, parse_subset
from d2_transfer.prediction import _catalog_classes

IDS = range(3, 4003)
FIRST = [77, 88, 147, 437, 490, 530, 605, 770, 947, 956]  # seed 0, 1 % of range(1000)


def test_the_choice_depends_on_the_seed_and_the_ids_alone() -> None:
    chosen = choose_images(IDS, 5, 0)
    assert len(chosen) == len(set(chosen)) == 200
    assert chosen == sorted(chosen) and set(chosen) <= set(IDS)
    assert choose_images(reversed(IDS), 5, 0) == chosen
    common = len(set(chosen) & set(choose_images(IDS, 5, 1)))
    assert common < 30  # of 200; expected are 10
    # The first ones of this seed: a list that was published stays the same.
    assert choose_images(range(1000), 1, 0) == FIRST


@pytest.mark.parametrize("seed", [0, 1, 7])
def test_the_parts_are_nested(seed: int) -> None:
    parts = [set(choose_images(IDS, percent, seed)) for percent in (0.01, 1, 2, 5, 10, 100)]
    assert [len(part) for part in parts] == [1, 40, 80, 200, 400, 4000]
    for smaller, larger in zip(parts, parts[1:], strict=False):
        assert smaller < larger


def test_each_image_is_as_likely_as_another() -> None:
    counts = dict.fromkeys(range(20), 0)
    for seed in range(2000):
        for number in choose_images(range(20), 25, seed):
            counts[number] += 1
    # Each count is binomial: mean 500, standard deviation 19.4.
    assert all(abs(count - 500) < 5 * 19.4 for count in counts.values())


def test_the_names() -> None:
    subset = parse_subset("coco_2017_train_0.5percent", 3)
    assert subset is not None
    assert (subset.base, subset.percent, subset.seed) == ("coco_2017_train", 0.5, 3)
    for other in ("coco_2017_train", "percent", "_1percent", "coco:train_1percent", "x_1percents"):
        assert parse_subset(other, 0) is None
    for share in ("0", "101"):
        with pytest.raises(ValueError, match=f"{share} % is not above 0 and at most 100"):
            parse_subset(f"x_{share}percent", 0)


def test_a_part_is_read_as_the_whole(scenes: Any, tmp_path: Path) -> None:
    whole = "subset_whole"
    images = str(scenes.root / "JPEGImages")
    register_coco_instances(whole, {}, str(scenes.root / "coco.json"), images)
    name = f"{whole}_50percent"
    register_subsets("DATASETS.TRAIN", [name, whole], 4)
    register_subsets("DATASETS.TRAIN", [name], 4)  # again, as each process of a run does
    records = DatasetCatalog.get(whole)
    ids = choose_images([r["image_id"] for r in records], 50, 4)
    assert len(ids) == 3
    assert DatasetCatalog.get(name) == [r for r in records if r["image_id"] in ids]
    metadata, other = MetadataCatalog.get(name), MetadataCatalog.get(whole)
    assert metadata.thing_classes == other.thing_classes == ["square", "bar"]
    assert metadata.json_file == other.json_file and metadata.name == name
    (file,) = write_subsets([name, whole], tmp_path / "lists")
    assert file == tmp_path / "lists" / f"{name}.json"
    assert json.loads(file.read_text()) == {
        "data_set": whole,
        "percent": 50.0,
        "seed": 4,
        "num_images": 3,
        "image_ids": ids,
    }
    register_subsets("DATASETS.TRAIN", [name], 5)  # another run of the same process
    ids = choose_images([r["image_id"] for r in records], 50, 5)
    assert [r["image_id"] for r in DatasetCatalog.get(name)] == ids


def test_what_has_no_parts(scenes: Any) -> None:
    register_custom([scenes.coco("subset_own")])
    for base in ("subset_own", "voc_2007_trainval", "unknown"):
        with pytest.raises(ValueError) as error:
            register_subsets("DATASETS.TRAIN", [f"{base}_1percent"], 0)
        assert str(error.value) == (
            f"DATASETS.TRAIN: '{base}_1percent' is not a subset of one of Detectron2's names for"
            " COCO, such as coco_2017_train_10percent"
        )
    with pytest.raises(ValueError, match="DATASETS.TRAIN: 'coco_2017_train_0percent': 0 % is not"):
        register_subsets("DATASETS.TRAIN", ["coco_2017_train_0percent"], 0)
    register_subsets("DATASETS.TRAIN", ["coco_2017_train", "coco:a.json", "nothing"], 0)


@pytest.mark.filterwarnings("ignore:torch.meshgrid")
@pytest.mark.filterwarnings("ignore:The 'warn' method is deprecated")
@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword")
def test_a_run_writes_the_list(scenes: Any, tmp_path: Path) -> None:
    whole = "subset_run"
    images = str(scenes.root / "JPEGImages")
    register_coco_instances(whole, {}, str(scenes.root / "coco.json"), images)
    d2_transfer.train(
        "quick/detection_faster_rcnn_r18_c4.yaml",
        weights="",
        output_dir=tmp_path / "run",
        num_gpus=0,
        DATASETS={"TRAIN": (f"{whole}_34percent",), "TEST": (whole,), "SUBSET_SEED": 2},
        MODEL={"ROI_HEADS": {"NUM_CLASSES": 2}},
        INPUT={"MIN_SIZE_TRAIN": (64,), "MIN_SIZE_TEST": 64},
        SOLVER={"IMS_PER_BATCH": 2, "MAX_ITER": 1, "STEPS": (), "AMP": {"ENABLED": False}},
        TEST={"PRECISE_BN": {"NUM_ITER": 1}},
    )
    content = json.loads((tmp_path / "run" / "subsets" / f"{whole}_34percent.json").read_text())
    ids = [r["image_id"] for r in DatasetCatalog.get(whole)]
    assert content["image_ids"] == choose_images(ids, 34, 2)
    assert (content["seed"], content["num_images"]) == (2, 2)


def test_a_model_trained_on_a_part_has_the_classes_of_the_whole() -> None:
    cfg = get_cfg()
    cfg.DATASETS.TRAIN = ("coco_2017_train_1percent",)
    classes = _catalog_classes(cfg)
    assert (len(classes), classes[0], classes[-1]) == (80, "person", "toothbrush")
