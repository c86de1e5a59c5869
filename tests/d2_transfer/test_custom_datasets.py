"""Registration of custom data sets, and what is said about data before training."""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_coco_instances, register_pascal_voc
from detectron2.data.datasets.pascal_voc import load_voc_instances
from detectron2.structures import BoxMode

from d2_transfer.data.registry import check_datasets, check_same_classes, register_custom

CLASSES = ("square", "bar")
_numbers = itertools.count()


def new_name() -> str:
    """The catalog is global: every test takes other names."""
    return f"scenes_{next(_numbers)}"


def check(name: str, **changes: Any) -> None:
    options = {"num_classes": 2, "mask_format": None, "evaluate": True, **changes}
    check_datasets("DATASETS.TRAIN", (name,), **options)


def test_coco_form(scenes: Any) -> None:
    name = new_name()
    register_custom([scenes.coco(name)])
    assert MetadataCatalog.get(name).thing_classes == list(CLASSES)  # before anything is loaded
    assert MetadataCatalog.get(name).evaluator_type == "coco"
    check(name, mask_format="polygon")
    records = DatasetCatalog.get(name)
    assert len(records) == 6
    for record, boxes in zip(records, scenes.boxes.values(), strict=True):
        assert [tuple(o["bbox"]) for o in record["annotations"]] == [box[:4] for box in boxes]
        assert [o["category_id"] for o in record["annotations"]] == [box[4] for box in boxes]
        assert all(o["bbox_mode"] == BoxMode.XYWH_ABS for o in record["annotations"])
        assert Path(record["file_name"]).is_file()


def test_voc_form(scenes: Any) -> None:
    name = new_name()
    register_custom([scenes.voc(name)])
    check(name)
    records = DatasetCatalog.get(name)
    for record, (image_id, boxes) in zip(records, scenes.boxes.items(), strict=True):
        assert (record["image_id"], record["height"], record["width"]) == (image_id, 64, 64)
        assert [o["bbox"] for o in record["annotations"]] == [
            [x, y, x + w, y + h] for x, y, w, h, _ in boxes
        ]
        assert all(o["bbox_mode"] == BoxMode.XYXY_ABS for o in record["annotations"])
        assert record["file_name"].endswith(f"{image_id}.png")


def test_voc_records_are_detectron2s(own_scenes: Any) -> None:
    for path in (own_scenes.root / "JPEGImages").iterdir():
        path.rename(path.with_suffix(".jpg"))  # the only kind that upstream's loader looks for
    name = new_name()
    register_custom([own_scenes.voc(name)])
    upstream = load_voc_instances(str(own_scenes.root), "all", CLASSES)
    assert DatasetCatalog.get(name) == upstream


def test_a_split_of_one_image(scenes: Any) -> None:
    name = new_name()
    register_custom([scenes.voc(name, split="one", YEAR=2012)])
    assert len(DatasetCatalog.get(name)) == 1
    assert MetadataCatalog.get(name).year == 2012


def test_relative_paths_start_from_the_current_folder(
    scenes: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    name = new_name()
    monkeypatch.chdir(scenes.root)
    register_custom([{"NAME": name, "FORMAT": "coco", "JSON": "coco.json", "IMAGES": "JPEGImages"}])
    monkeypatch.chdir(tmp_path)
    check(name)
    assert Path(DatasetCatalog.get(name)[0]["file_name"]).is_absolute()


def test_registering_again_is_nothing_but_a_clash_is_an_error(scenes: Any) -> None:
    name = new_name()
    register_custom([scenes.coco(name)])
    register_custom([scenes.coco(name), scenes.coco(name)])
    with pytest.raises(ValueError, match=f"the name '{name}' is already in use, by .*coco.json"):
        register_custom([scenes.voc(name)])
    with pytest.raises(ValueError, match="'voc_2007_val' is already in use, by one of Detectron"):
        register_custom([scenes.voc("voc_2007_val")])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"FORMAT": "yolo"}, "is not like {'NAME'"),
        ({"JSON": None}, "'bad' lacks JSON"),
        ({"EXTRA": 1, "MORE": 2}, "'bad' has unknown keys EXTRA, MORE; known: IMAGES, JSON"),
        ({"FORMAT": "voc"}, "'bad' lacks ROOT, SPLIT"),
    ],
)
def test_a_malformed_entry_is_an_error(scenes: Any, change: dict[str, Any], message: str) -> None:
    entry = {k: v for k, v in {**scenes.coco("bad"), **change}.items() if v is not None}
    with pytest.raises(ValueError, match=message):
        register_custom([entry])
    assert "bad" not in DatasetCatalog


def test_other_malformed_entries(scenes: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="DATASETS.CUSTOM: 'scenes' is not like"):
        register_custom(["scenes"])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="YEAR must be 2007 or 2012"):
        register_custom([scenes.voc("bad", YEAR=2010)])
    with pytest.raises(
        FileNotFoundError, match=r"nowhere.json of the data set 'bad' does not exist"
    ):
        register_custom([scenes.coco("bad", tmp_path / "nowhere.json")])
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(ValueError, match="broken.json is not valid JSON"):
        register_custom([scenes.coco("bad", tmp_path / "broken.json")])
    (tmp_path / "list.json").write_text("[]")
    with pytest.raises(ValueError, match="list.json is not a COCO annotation file"):
        register_custom([scenes.coco("bad", tmp_path / "list.json")])


def test_unknown_names_and_other_classes(scenes: Any) -> None:
    name = new_name()
    register_custom([scenes.coco(name)])
    with pytest.raises(
        ValueError, match="DATASETS.TRAIN: unknown data set 'coco_2017_trian'; did you .*2017_train"
    ):
        check("coco_2017_trian")
    with pytest.raises(
        ValueError, match="has 2 classes, but the model has 80: set .*NUM_CLASSES 2"
    ):
        check(name, num_classes=80)
    with pytest.raises(
        ValueError, match="'voc_2007_val' has boxes only, but MODEL.MASK_ON is True"
    ):
        check("voc_2007_val", num_classes=20, mask_format="polygon")


def test_data_sets_of_one_run_have_the_same_classes(scenes: Any, tmp_path: Path) -> None:
    one, same, other = new_name(), new_name(), new_name()
    register_custom([scenes.coco(one), scenes.voc(same)])
    check_same_classes([one, same])
    register_custom([scenes.voc(other) | {"CLASSES": ["bar", "square"]}])
    with pytest.raises(ValueError, match=f"class 0 is 'square' in '{one}' and 'bar' in '{other}'"):
        check_same_classes([one, same, other])


@pytest.mark.parametrize("root", [None, "/data"])
def test_missing_files_of_detectron2s_own_data_sets(
    root: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    coco, voc = new_name(), new_name()
    register_coco_instances(coco, {}, "/nowhere/train.json", "/nowhere/train2017")
    register_pascal_voc(voc, "/nowhere/VOC2007", "val", 2007)
    MetadataCatalog.get(voc).evaluator_type = "pascal_voc"
    if root is None:
        monkeypatch.delenv("DETECTRON2_DATASETS", raising=False)
        hint = "is DETECTRON2_DATASETS set?"
    else:
        monkeypatch.setenv("DETECTRON2_DATASETS", root)
        hint = "DETECTRON2_DATASETS is /data"
    for name, file in ((coco, "train.json"), (voc, "ImageSets/Main/val.txt")):
        with pytest.raises(FileNotFoundError, match=f"/nowhere/.*{file} of .* not exist .{hint}"):
            check(name, num_classes=20)


COCO_FAULTS = {
    "category": (
        lambda c: c["annotations"][0].update(category_id=7),
        "annotation 1 has the category_id 7, which is not defined",
    ),
    "area": (lambda c: c["annotations"][1].pop("area"), "annotation 2 lacks area"),
    "mask": (
        lambda c: c["annotations"][0].update(segmentation=[]),
        "annotation 1 lacks segmentation .*MODEL.MASK_ON False needs no masks",
    ),
    "rle": (
        lambda c: c["annotations"][0].update(segmentation={"size": [64, 64], "counts": [4096]}),
        "annotation 1: its mask is not a polygon .INPUT.MASK_FORMAT bitmask accepts",
    ),
    "rle size": (
        lambda c: c["annotations"][0].update(segmentation={"size": [9, 64], "counts": [576]}),
        "annotation 1: its mask is not a polygon",
    ),
    "no annotations": (lambda c: c["annotations"].clear(), "has no annotations"),
    "id": (lambda c: c["annotations"][0].update(id=[1]), r"annotation id \[1\] is not an integer"),
    "twice": (lambda c: c["annotations"][1].update(id=1), "the annotation id 1 occurs twice"),
    "image key": (lambda c: c["images"][2].pop("height"), "image 3 lacks height"),
    "image twice": (lambda c: c["images"][2].update(id=1), "the image id 1 occurs twice"),
    "size": (lambda c: c["images"][2].update(height="64"), "image 3 has the size 64 x '64'"),
    "image": (
        lambda c: c["annotations"][0].update(image_id=99),
        "annotation 1 has the image_id 99, which is not defined",
    ),
    "box": (
        lambda c: c["annotations"][0].update(bbox=[1, 2, 0, 4]),
        r"annotation 1 has the bbox \[1, 2, 0, 4\]; it must be x, y, width, height",
    ),
    "nan": (lambda c: c["annotations"][0].update(bbox=[1, 2, 3, float("nan")]), "has the bbox"),
    "short polygon": (
        lambda c: c["annotations"][0].update(segmentation=[[1, 2, 3, 4]]),
        "annotation 1: its mask must be an RLE or polygons of three points",
    ),
    "flat polygon": (
        lambda c: c["annotations"][0].update(segmentation=[1, 2, 3, 4, 5, 6]),
        "annotation 1: its mask must be an RLE or polygons of three points",
    ),
    "crowd": (
        lambda c: c["annotations"][0].update(iscrowd="no"),
        "annotation 1: area and iscrowd must be numbers",
    ),
    "no images": (lambda c: c["images"].clear(), "lists no images"),
}


@pytest.mark.parametrize("fault", COCO_FAULTS)
def test_faults_in_a_coco_file_are_named(scenes: Any, tmp_path: Path, fault: str) -> None:
    change, message = COCO_FAULTS[fault]
    content = json.loads((scenes.root / "coco.json").read_text())
    change(content)
    path = tmp_path / "faulty.json"
    path.write_text(json.dumps(content))
    name = new_name()
    register_custom([scenes.coco(name, path)])
    with pytest.raises(ValueError, match=f"faulty.json.*{message}"):
        check(name, mask_format="polygon")


@pytest.mark.parametrize(
    ("section", "entry", "message"),
    [
        ("annotations", 7, "an entry of annotations is not an object"),
        ("categories", {"id": 3}, "a category lacks an integer id or a name"),
        ("categories", {"id": 10, "name": "again"}, "a category id occurs twice"),
        ("categories", {"id": 3, "name": "bar"}, "two categories have the same name"),
    ],
)
def test_faults_that_keep_a_coco_file_from_being_registered(
    scenes: Any, tmp_path: Path, section: str, entry: Any, message: str
) -> None:
    content = json.loads((scenes.root / "coco.json").read_text())
    content[section].append(entry)
    path = tmp_path / "faulty.json"
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=f"faulty.json.*{message}"):
        register_custom([scenes.coco(new_name(), path)])


def test_masks_and_areas_are_needed_only_where_they_are_used(scenes: Any, tmp_path: Path) -> None:
    content = json.loads((scenes.root / "coco.json").read_text())
    for annotation in content["annotations"]:
        annotation["segmentation"] = {"size": [64, 64], "counts": [4096]}
        del annotation["area"]
    path = tmp_path / "rle.json"
    path.write_text(json.dumps(content))
    name = new_name()
    register_custom([scenes.coco(name, path)])
    check(name, mask_format="bitmask", evaluate=False)
    check(name, evaluate=False)


def test_a_missing_image_is_named(own_scenes: Any) -> None:
    (own_scenes.root / "JPEGImages" / "000003.png").unlink()
    for entry in (own_scenes.coco(new_name()), own_scenes.voc(new_name())):
        register_custom([entry])
        with pytest.raises(FileNotFoundError, match=r"000003.* does not exist"):
            check(entry["NAME"])


def edit_xml(root: Path, old: str, new: str) -> None:
    path = root / "Annotations" / "000001.xml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


VOC_FAULTS = {
    "class": (
        lambda r: edit_xml(r, "<name>bar", "<name>pole"),
        "000001.xml: class 'pole' is not among square, bar",
    ),
    "xml": (lambda r: edit_xml(r, "</annotation>", ""), "000001.xml is not valid XML"),
    "size": (
        lambda r: edit_xml(r, "<width>64</width>", ""),
        "000001.xml: <annotation> lacks size/width",
    ),
    "empty box": (lambda r: edit_xml(r, "<xmin>", "<xmin>99"), "000001.xml: the box .* is empty"),
    "box": (lambda r: edit_xml(r, "<xmin>", "<xmin>a"), "000001.xml: could not convert string"),
    "float box": (
        lambda r: edit_xml(r, "</xmin>", ".5</xmin>"),
        r"needs an integer in <bndbox/xmin>, object 1 has '\d+.5'",
    ),
    "tag": (
        lambda r: edit_xml(r, "<truncated>0</truncated>", ""),
        "needs an integer in <truncated>, object 1 has ''",
    ),
    "pose": (
        lambda r: edit_xml(r, "<pose>Unspecified</pose>", ""),
        "needs <pose>, object 1 has none",
    ),
    "empty line": (
        lambda r: (r / "ImageSets/Main/all.txt").write_text("000000\n\n000001\n"),
        "all.txt: line 2 is empty",
    ),
    "empty list": (lambda r: (r / "ImageSets/Main/all.txt").write_text(""), "lists no images"),
}


@pytest.mark.parametrize("fault", VOC_FAULTS)
def test_faults_in_voc_files_are_named(own_scenes: Any, fault: str) -> None:
    change, message = VOC_FAULTS[fault]
    change(own_scenes.root)
    name = new_name()
    register_custom([own_scenes.voc(name)])
    with pytest.raises(ValueError, match=message):
        check(name)


def test_missing_voc_folders(own_scenes: Any) -> None:
    shutil.rmtree(own_scenes.root / "Annotations")
    with pytest.raises(FileNotFoundError, match="Annotations of the data set 'bad' does not exist"):
        register_custom([own_scenes.voc("bad")])
