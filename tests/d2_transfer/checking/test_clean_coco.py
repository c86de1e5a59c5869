"""Mended data as a COCO file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from annotated_sets import (
    boxes_of,
    coco_set,
    save_turned,
    truth,
    voc_set,
    yolo_polygon,
    yolo_set,
)
from pycocotools.coco import COCO

from d2_transfer.checking.clean_coco import ignored_orientations, write_coco
from d2_transfer.data.load import load_annotated
from d2_transfer.data.spec import CocoSpec


def messy(content: dict[str, Any]) -> None:
    """Ids from 0, names of another machine, a box beyond its image, one without width."""
    for image in content["images"]:
        image.update(id=image["id"] - 1, file_name=f"C:\\set\\{image['file_name'].upper()}")
    for annotation in content["annotations"]:
        annotation.update(id=annotation["id"] - 1, image_id=annotation["image_id"] - 1)
    content["annotations"][0]["bbox"][2] = 500
    content["annotations"][1]["bbox"][2] = 0


def test_what_is_written_needs_no_mend(tmp_path: Path) -> None:
    loaded = load_annotated(coco_set(tmp_path, messy), masks=True)
    root = write_coco(loaded, tmp_path / "out" / "clean.json")
    assert root == tmp_path / "images"
    again = load_annotated(CocoSpec(tmp_path / "out" / "clean.json", root), masks=True, strict=True)
    assert boxes_of(again) == boxes_of(loaded)
    assert [image.id for image in again.data.images] == [1, 2, 3, 4]
    content = json.loads((tmp_path / "out" / "clean.json").read_text())
    assert [image["file_name"] for image in content["images"]] == [f"p{n}.png" for n in range(4)]
    assert [a["id"] for a in content["annotations"]] == [1, 2, 3]
    assert content["info"]["exif_orientation_must_be_ignored"] == []
    coco = COCO(str(tmp_path / "out" / "clean.json"))
    assert coco.annToMask(coco.anns[2]).sum() == content["annotations"][1]["area"]


@pytest.mark.parametrize("form", ["voc", "yolo"])
def test_other_forms_become_coco(tmp_path: Path, form: str) -> None:
    spec: Any = voc_set(tmp_path, classes=("cat", "dog")) if form == "voc" else None
    spec = spec or yolo_set(tmp_path, row=yolo_polygon)
    loaded = load_annotated(spec, masks=form == "yolo")
    root = write_coco(loaded, tmp_path / "clean.json")
    again = load_annotated(CocoSpec(tmp_path / "clean.json", root), strict=True)
    assert boxes_of(again) == truth()
    assert again.data.classes == ["cat", "dog"]
    masks = [
        "segmentation" in a
        for a in json.loads((tmp_path / "clean.json").read_text())["annotations"]
    ]
    assert masks == [form == "yolo"] * 4


def test_difficult_objects_stay_marked(tmp_path: Path) -> None:
    loaded = load_annotated(voc_set(tmp_path, fields="<difficult>1</difficult>"))
    write_coco(loaded, tmp_path / "clean.json")
    content = json.loads((tmp_path / "clean.json").read_text())
    assert [a["difficult"] for a in content["annotations"]] == [1] * 4


def test_images_whose_orientation_the_boxes_ignore_are_listed(tmp_path: Path) -> None:
    loaded = load_annotated(coco_set(tmp_path, save=save_turned(6), suffix=".jpg"))
    assert ignored_orientations(loaded) == [tmp_path / "images" / f"p{n}.jpg" for n in range(4)]
    root = write_coco(loaded, tmp_path / "clean.json")
    content = json.loads((tmp_path / "clean.json").read_text())
    names = [f"p{n}.jpg" for n in range(4)]
    assert content["info"]["exif_orientation_must_be_ignored"] == names
    again = load_annotated(CocoSpec(tmp_path / "clean.json", root))
    assert boxes_of(again) == truth(".jpg")
