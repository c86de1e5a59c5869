"""Seeded, nested parts of a data set, from the choice to a run that trains on one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_coco_instances

import d2_transfer
from d2_transfer.config import get_cfg
from d2_transfer.data.registry import (
    Reading,
    load_data,
    register_custom,
    register_named,
    write_subsets,
)
from d2_transfer.data.subsets import choose_images, parse_subset, subset_name
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
    assert (subset.base, subset.start, subset.end, subset.seed) == ("coco_2017_train", 0, 0.5, 3)
    ranged = parse_subset("coco:a_2.json:x_7percent_12.5to20percent", 0)
    assert ranged is not None
    assert (ranged.base, ranged.start, ranged.end) == ("coco:a_2.json:x_7percent", 12.5, 20)
    for found in (subset, ranged):
        assert subset_name(found.base, found.end, found.start) == found.name
    for other in ("coco_2017_train", "percent", "_1percent", "x_1percents"):
        assert parse_subset(other, 0) is None
    for share in ("0", "101"):
        with pytest.raises(ValueError, match=f"{share} % is not above 0 and at most 100"):
            parse_subset(f"x_{share}percent", 0)
    with pytest.raises(ValueError, match="'x_9to9percent': the range from 9 to 9 % is empty"):
        parse_subset("x_9to9percent", 0)


def test_ranges_share_the_images_among_them() -> None:
    parts = [choose_images(IDS, end, 3, start=end - 12.5) for end in np.arange(12.5, 101, 12.5)]
    assert sorted(sum(parts, [])) == list(IDS)
    assert parts[0] == choose_images(IDS, 12.5, 3)
    names = [f"{i:06d}" for i in IDS]  # text ids, as those of VOC
    assert choose_images(names, 12.5, 3) == [f"{i:06d}" for i in parts[0]]
    with pytest.raises(ValueError, match="no image is in the range from 90 to 91 % of 4 images"):
        choose_images(range(4), 91, 0, start=90)


def test_a_part_is_read_as_the_whole(scenes: Any, tmp_path: Path) -> None:
    whole = "subset_whole"
    images = str(scenes.root / "JPEGImages")
    register_coco_instances(whole, {}, str(scenes.root / "coco.json"), images)
    name = f"{whole}_50percent"
    register_named("DATASETS.TRAIN", [name, whole], 4)
    register_named("DATASETS.TRAIN", [name], 4)  # again, as each process of a run does
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
        "from_percent": 0.0,
        "to_percent": 50.0,
        "seed": 4,
        "num_images": 3,
        "image_ids": ids,
    }
    register_named("DATASETS.TRAIN", [name], 5)  # another run of the same process
    ids = choose_images([r["image_id"] for r in records], 50, 5)
    assert [r["image_id"] for r in DatasetCatalog.get(name)] == ids


@pytest.mark.parametrize("form", ["coco", "voc", "coco spec", "voc spec"])
def test_parts_of_own_data(scenes: Any, tmp_path: Path, form: str) -> None:
    specs = {
        "coco spec": f"coco:{scenes.root / 'coco.json'}:{scenes.root / 'JPEGImages'}",
        "voc spec": f"voc:{scenes.root}:all",
    }
    whole = specs.get(form, f"parts_{form}")
    if form not in specs:
        register_custom([getattr(scenes, form)(whole)])
    train, val = f"{whole}_0to50percent", f"{whole}_50to100percent"
    one = f"{whole}_17percent"
    register_named("DATASETS.TRAIN", [train, val, one], 3)
    everything = load_data(whole, Reading()).data
    parts = [load_data(name, Reading()).data for name in (train, val)]
    ids = [[image.id for image in part.images] for part in parts]
    assert [len(of_part) for of_part in ids] == [3, 3]
    assert sorted(ids[0] + ids[1]) == [image.id for image in everything.images]
    assert [r["image_id"] for r in DatasetCatalog.get(train)] == ids[0]
    # An image with one class only: the classes are those of the whole.
    (image,) = load_data(one, Reading()).data.images
    assert load_data(one, Reading()).data.classes == everything.classes
    assert sorted(everything.classes) == ["bar", "square"]
    assert image.id in ids[0]
    (file,) = write_subsets([train], tmp_path)
    assert file.parent == tmp_path  # also where the name has a path in it
    assert json.loads(file.read_text())["image_ids"] == ids[0]
    register_named("DATASETS.TRAIN", [train], 5)  # another run of the same process
    assert [r["image_id"] for r in DatasetCatalog.get(train)] != ids[0]


def test_a_folder_that_is_named_as_a_part_is_the_whole(scenes: Any, tmp_path: Path) -> None:
    (tmp_path / "images_50percent").symlink_to(scenes.root / "JPEGImages")
    (tmp_path / "coco.json").symlink_to(scenes.root / "coco.json")
    name = f"coco:{tmp_path / 'coco.json'}:{tmp_path / 'images_50percent'}"
    register_named("DATASETS.TRAIN", [name, f"{name}_50percent"])
    assert len(DatasetCatalog.get(name)) == 6
    assert len(DatasetCatalog.get(f"{name}_50percent")) == 3


def test_what_has_no_parts() -> None:
    with pytest.raises(ValueError) as error:
        register_named("DATASETS.TRAIN", ["unknown_1percent"])
    assert str(error.value) == (
        "DATASETS.TRAIN: 'unknown_1percent' is not a subset of a data set: 'unknown' is neither in"
        " DATASETS.CUSTOM, nor a spec, nor one of Detectron2's names for COCO and VOC"
    )
    with pytest.raises(ValueError, match="DATASETS.TRAIN: 'coco_2017_train_0percent': 0 % is not"):
        register_named("DATASETS.TRAIN", ["coco_2017_train_0percent"], 0)
    register_named("DATASETS.TRAIN", ["coco_2017_train", "nothing"], 0)


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


def test_a_small_share_has_a_name_too() -> None:
    for share in (1e-5, 100 / 3, 50, 0.5):
        found = parse_subset(subset_name("NAME", share), 0)
        assert found is not None and (found.base, found.end) == ("NAME", share)


def test_ranges_that_follow_each_other_share_no_image_however_few_there_are() -> None:
    for count in range(2, 30):
        for border in (1, 10, 34.5, 50):
            first = choose_images(range(count), border, 0)
            try:
                second = choose_images(range(count), 100, 0, start=border)
            except ValueError:
                continue
            assert sorted(first + second) == list(range(count))


def test_a_part_of_a_part_follows_its_own_seed(scenes: Any) -> None:
    register_custom([scenes.coco("of_a_part")])
    half = "of_a_part_0to50percent"

    def ids(name: str, seed: int) -> list[Any]:
        register_named("DATASETS.TRAIN", [name], seed)
        return [image.id for image in load_data(name, Reading()).data.images]

    first = {seed: ids(f"{half}_34percent", seed) for seed in range(6)}
    assert len({tuple(found) for found in first.values()}) > 1
    for seed, found in first.items():
        ids(half, seed + 1)
        assert ids(f"{half}_34percent", seed) == found
        ids(half, seed + 1)
        assert ids(f"{half}_34percent", seed) == found
