"""Data sets under the class numbers of a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from annotated_sets import LABELS, coco_set, voc_set, yolo_row, yolo_set

from d2_transfer.data.findings import MENDED, NOTED
from d2_transfer.data.load import count_classes, load_annotated


def test_classes_are_mapped_by_name(tmp_path: Path) -> None:
    loaded = load_annotated(coco_set(tmp_path), classes=["bird", "dog", "cat"])
    assert loaded.data.classes == ["bird", "dog", "cat"]
    assert loaded.data.category_ids == [3, 2, 1]  # the file has no bird
    assert [image.things[0].label for image in loaded.data.images] == LABELS
    assert loaded.findings.as_dict() == {NOTED: {"class without objects": 1}}
    assert count_classes(loaded.data) == {"bird": 0, "dog": 2, "cat": 2}


@pytest.mark.parametrize("build", [voc_set, yolo_set])
def test_forms_without_ids_count_from_one(tmp_path: Path, build: Any) -> None:
    loaded = load_annotated(build(tmp_path), classes=["dog", "bird", "cat"])
    assert loaded.data.category_ids == [1, 2, 3]
    assert [image.things[0].label for image in loaded.data.images] == LABELS


def test_case_may_differ(tmp_path: Path) -> None:
    loaded = load_annotated(coco_set(tmp_path), classes=["Dog", "cat"])
    assert loaded.data.classes == ["Dog", "cat"] and loaded.data.category_ids == [2, 1]
    assert loaded.findings.as_dict()[MENDED] == {"class that differs in case, read as 'Dog'": 1}


def test_a_class_that_the_model_lacks_is_refused_if_it_has_objects(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"annotation 2 has the class 'dog', which is not among cat"
    ):
        load_annotated(coco_set(tmp_path / "a"), classes=["cat"])

    def only_cats(content: dict[str, Any]) -> None:
        for annotation in content["annotations"]:
            annotation["category_id"] = 1

    loaded = load_annotated(coco_set(tmp_path / "b", only_cats), classes=["cat"])
    kind = "class of the file that the model lacks, without objects"
    assert loaded.findings.as_dict() == {NOTED: {kind: 1}}
    loaded = load_annotated(
        yolo_set(tmp_path / "c", row=lambda n: f"0{yolo_row(n)[1:]}"), classes=["cat"]
    )
    assert loaded.findings.as_dict() == {NOTED: {kind: 1}}


def test_a_class_named_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="classes cat, dog, cat: one is named twice"):
        load_annotated(coco_set(tmp_path), classes=["cat", "dog", "cat"])
