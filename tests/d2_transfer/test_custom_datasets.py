"""Registration of custom data sets, and what is said about data before training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from annotated_sets import BOXES, yolo_polygon, yolo_set
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_coco_instances, register_pascal_voc
from detectron2.data.datasets.pascal_voc import load_voc_instances
from detectron2.structures import BoxMode
from settled import changed_coco, new_name, settle

from d2_transfer.data.registry import register_custom

CLASSES = ("square", "bar")


def test_coco_form(scenes: Any) -> None:
    name = new_name()
    register_custom([scenes.coco(name)])
    settle((name,), masks=True)
    assert MetadataCatalog.get(name).thing_classes == list(CLASSES)
    assert MetadataCatalog.get(name).evaluator_type == "coco"
    records = DatasetCatalog.get(name)
    assert len(records) == 6
    for record, boxes in zip(records, scenes.boxes.values(), strict=True):
        things = record["annotations"]
        assert [o["bbox"] for o in things] == [[x, y, x + w, y + h] for x, y, w, h, _ in boxes]
        assert [o["category_id"] for o in things] == [box[4] for box in boxes]
        assert all(o["bbox_mode"] == BoxMode.XYXY_ABS and "segmentation" in o for o in things)
        assert Path(record["file_name"]).is_file()


def test_voc_form(scenes: Any) -> None:
    name = new_name()
    register_custom([scenes.voc(name)])
    settle((name,))
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
    settle((name,))
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
        ({"FORMAT": "csv"}, "is not like {'NAME'.*'FORMAT': 'yolo', 'YAML': FILE"),
        ({"FORMAT": "yolo"}, "'bad' lacks SPLIT, YAML"),
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
    with pytest.raises(ValueError, match="CLASSES 'circle' must be a list of names"):
        register_custom([scenes.voc("bad", CLASSES="circle")])
    with pytest.raises(
        FileNotFoundError, match=r"nowhere.json of the data set 'bad' does not exist"
    ):
        register_custom([scenes.coco("bad", tmp_path / "nowhere.json")])
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "list.json").write_text("[]")
    broken, no_coco = new_name(), new_name()
    register_custom([scenes.coco(broken, tmp_path / "broken.json")])
    register_custom([scenes.coco(no_coco, tmp_path / "list.json")])
    with pytest.raises(ValueError, match="broken.json is not valid JSON"):
        settle((broken,))
    with pytest.raises(ValueError, match="list.json is not a COCO annotation file"):
        settle((no_coco,))


def test_unknown_names_and_data_without_masks(scenes: Any) -> None:
    with pytest.raises(
        ValueError, match="DATASETS.TRAIN: unknown data set 'coco_2017_trian'; did you .*2017_train"
    ):
        settle(("coco_2017_trian",))
    name = new_name()
    register_custom([scenes.voc(name)])
    with pytest.raises(ValueError, match=f"'{name}' has boxes only, but MODEL.MASK_ON is True"):
        settle((name,), masks=True)


def test_specs_are_names(scenes: Any, tmp_path: Path) -> None:
    yolo_set(tmp_path / "yolo")
    coco = f"coco:{scenes.root}/coco.json:{scenes.root}/JPEGImages"
    voc = f"voc:{scenes.root}:all"
    yolo = f"yolo:{tmp_path}/yolo/data.yaml:train"
    for name, classes in ((coco, ["square", "bar"]), (voc, ["bar", "square"])):
        assert classes == settle((name,), (name,)).DATASETS.CLASSES
        assert len(DatasetCatalog.get(name)) == 6
    assert settle((yolo,), (yolo,)).DATASETS.CLASSES == ["cat", "dog"]
    assert DatasetCatalog.get(yolo)[0]["annotations"][0]["bbox"] == pytest.approx(
        BOXES[0], abs=1e-4
    )
    with pytest.raises(
        ValueError, match="DATASETS.TEST: 'coco:' is not a data set; write coco:ANN"
    ):
        settle((coco,), ("coco:",))


def test_yolo_entries(tmp_path: Path) -> None:
    spec, name = yolo_set(tmp_path, row=yolo_polygon), new_name()
    register_custom([{"NAME": name, "FORMAT": "yolo", "YAML": str(spec.yaml), "SPLIT": "train"}])
    settle((name,), (name,), masks=True)
    assert all("segmentation" in a for r in DatasetCatalog.get(name) for a in r["annotations"])


def test_detectron2s_voc_is_read_here(
    own_scenes: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "VOC2007").symlink_to(own_scenes.root)
    (own_scenes.root / "ImageSets/Main/val.txt").write_text("000000\n")
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="DATASETS.TEST: .*test.txt .*DETECTRON2_DATASETS"):
        settle(("voc_2007_val",), ("voc_2007_test",))
    with pytest.raises(ValueError, match="000000.xml: object 1 has the class 'square', which is"):
        settle(("voc_2007_val",))
    path = own_scenes.root / "Annotations" / "000000.xml"
    path.write_text(
        path.read_text().replace("square", "sheep").replace("<pose>Unspecified</pose>", "")
    )
    assert len(settle(("voc_2007_val",)).DATASETS.CLASSES) == 20
    assert DatasetCatalog.get("voc_2007_val")[0]["annotations"][0]["category_id"] == 16


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
            settle((name,))


def drop(*keys: str) -> Callable[[dict[str, Any]], object]:
    return lambda c: [a.pop(key) for a in c["annotations"] for key in keys]


REFUSED: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "category": (
        lambda c: c["annotations"][0].update(category_id=7),
        "annotation 1 has the category_id 7, which no category has",
    ),
    "no masks": (drop("segmentation"), "no object has a usable mask; set MODEL.MASK_ON False"),
    "no annotations": (lambda c: c["annotations"].clear(), "has no annotations"),
    "no images": (lambda c: c["images"].clear(), "no annotation has the image_id of an image"),
    "crowds": (
        lambda c: [a.update(iscrowd=1) for a in c["annotations"]],
        r"has crowds only \(iscrowd 1\)",
    ),
    "crowd": (lambda c: c["annotations"][0].update(iscrowd="maybe"), "has the iscrowd 'maybe'"),
    "two files": (lambda c: c["images"][2].update(id=1), "the image id 1 stands for two files"),
    "entry": (lambda c: c["annotations"].append(7), "an entry of annotations is not an object"),
    "copy": (
        lambda c: [i.update(width=640, height=640) for i in c["images"]],
        "its size is 640 x 640, but .*annotated on a resized copy",
    ),
}


@pytest.mark.parametrize("fault", REFUSED)
def test_what_has_no_single_reading_is_refused(scenes: Any, tmp_path: Path, fault: str) -> None:
    change, message = REFUSED[fault]
    entry = changed_coco(scenes, tmp_path, change)
    register_custom([entry])
    with pytest.raises(ValueError, match=message) as error:
        settle((entry["NAME"],), masks=True)
    assert "\n" not in str(error.value)


READ: dict[str, tuple[Callable[[dict[str, Any]], object], int]] = {
    "no area": (drop("area", "iscrowd"), 9),
    "ids from 0": (lambda c: [a.update(id=a["id"] - 1) for a in c["annotations"]], 9),
    "no size": (lambda c: [i.pop("height") for i in c["images"]], 9),
    "text": (lambda c: c["images"][2].update(height="64"), 9),
    "unknown image": (lambda c: c["annotations"][0].update(image_id=99), 8),
    "no width": (lambda c: c["annotations"][0].update(bbox=[1, 2, 0, 4]), 8),
    "nan": (lambda c: c["annotations"][0].update(bbox=[1, 2, 3, float("nan")]), 8),
    "no mask": (lambda c: c["annotations"][0].update(segmentation=[]), 9),
    "short polygon": (lambda c: c["annotations"][0].update(segmentation=[[1, 2, 3, 4]]), 9),
}


@pytest.mark.parametrize("kind", READ)
def test_what_has_one_reading_is_read(scenes: Any, tmp_path: Path, kind: str) -> None:
    change, count = READ[kind]
    entry = changed_coco(scenes, tmp_path, change)
    register_custom([entry])
    settle((entry["NAME"],), (entry["NAME"],), masks=True)
    assert sum(len(record["annotations"]) for record in DatasetCatalog.get(entry["NAME"])) == count


def test_strict_refuses_what_would_be_mended_or_skipped(scenes: Any, tmp_path: Path) -> None:
    entry = changed_coco(scenes, tmp_path, lambda c: c["annotations"][0].update(bbox=[1, 2, 0, 4]))
    register_custom([entry])
    with pytest.raises(ValueError, match=r"would be skipped.*DATASETS.STRICT is True"):
        settle((entry["NAME"],), **{"DATASETS.STRICT": True})


def test_an_object_without_a_mask(scenes: Any, tmp_path: Path) -> None:
    entry = changed_coco(scenes, tmp_path, lambda c: c["annotations"][0].pop("segmentation"))
    register_custom([entry])
    counts = {}
    for maskless in ("box", "skip"):
        settle((entry["NAME"],), masks=True, **{"DATASETS.MASKLESS": maskless})
        things = [a for r in DatasetCatalog.get(entry["NAME"]) for a in r["annotations"]]
        counts[maskless] = len(things), sum("segmentation" in thing for thing in things)
    assert counts == {"box": (9, 8), "skip": (8, 8)}


def test_rle_needs_bitmasks(scenes: Any, tmp_path: Path) -> None:
    rle = {"size": [64, 64], "counts": [100, 50, 64 * 64 - 150]}
    entry = changed_coco(scenes, tmp_path, lambda c: c["annotations"][0].update(segmentation=rle))
    plain = new_name()
    register_custom([entry, scenes.coco(plain)])
    assert settle((plain,), masks=True).INPUT.MASK_FORMAT == "polygon"
    assert settle((entry["NAME"],), masks=True).INPUT.MASK_FORMAT == "bitmask"


def test_unreadable_images(own_scenes: Any) -> None:
    images = own_scenes.root / "JPEGImages"
    (images / "000003.png").unlink()  # one of six: 5 %, rounded up
    names = [new_name(), new_name()]
    register_custom([own_scenes.coco(names[0]), own_scenes.voc(names[1])])
    for name in names:
        settle((name,))
        assert len(DatasetCatalog.get(name)) == 5
    (images / "000004.png").write_bytes(b"")
    for name in names:
        with pytest.raises(ValueError, match=r"2 of 6 images cannot be read.* first is .*000003"):
            settle((name,))
        settle((name,), **{"DATASETS.MAX_UNREADABLE_SHARE": 0.3})
        assert len(DatasetCatalog.get(name)) == 4


def edit_xml(root: Path, old: str, new: str) -> None:
    path = root / "Annotations" / "000001.xml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


VOC_REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "class": (
        lambda r: edit_xml(r, "<name>bar", "<name>pole"),
        "000001.xml: object 2 has the class 'pole', which is not among square, bar",
    ),
    "xml": (lambda r: edit_xml(r, "</annotation>", ""), "000001.xml is not valid XML"),
    "empty list": (lambda r: (r / "ImageSets/Main/all.txt").write_text(""), "lists no images"),
}


@pytest.mark.parametrize("fault", VOC_REFUSED)
def test_faults_in_voc_files_are_named(own_scenes: Any, fault: str) -> None:
    change, message = VOC_REFUSED[fault]
    change(own_scenes.root)
    name = new_name()
    register_custom([own_scenes.voc(name)])
    with pytest.raises(ValueError, match=message):
        settle((name,))


VOC_READ: dict[str, tuple[Callable[[Path], object], int]] = {
    "no size": (lambda r: edit_xml(r, "<width>64</width>", ""), 9),
    "no number": (lambda r: edit_xml(r, "<xmin>", "<xmin>a"), 8),
    "float": (lambda r: edit_xml(r, "</xmin>", ".5</xmin>"), 9),
    "no tag": (lambda r: edit_xml(r, "<truncated>0</truncated>", ""), 9),
    "no pose": (lambda r: edit_xml(r, "<pose>Unspecified</pose>", ""), 9),
    "blank line": (
        lambda r: (r / "ImageSets/Main/all.txt").write_text("000000\n\n000001\n"),
        3,
    ),
}


@pytest.mark.parametrize("kind", VOC_READ)
def test_what_is_read_of_voc_files(own_scenes: Any, kind: str) -> None:
    change, count = VOC_READ[kind]
    change(own_scenes.root)
    name = new_name()
    register_custom([own_scenes.voc(name)])
    settle((name,), (name,))
    assert sum(len(record["annotations"]) for record in DatasetCatalog.get(name)) == count


def test_a_missing_voc_folder(own_scenes: Any) -> None:
    entry = own_scenes.voc("bad", ROOT=str(own_scenes.root / "nowhere"))
    with pytest.raises(FileNotFoundError, match="nowhere of the data set 'bad' does not exist"):
        register_custom([entry])
