"""COCO files as tools write them: what is read as it stands, mended, skipped and refused."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from annotated_sets import BOXES, WIDTH, boxes_of, coco_content, coco_set, truth, write_pictures

from d2_transfer.data.findings import MENDED, SKIPPED
from d2_transfer.data.load import LoadedData, load_annotated
from d2_transfer.data.spec import CocoSpec

Change = Callable[[dict[str, Any]], object]


def found(loaded: LoadedData, action: str) -> dict[str, int]:
    return loaded.findings.as_dict().get(action, {})


def each_annotation(**values: Any) -> Change:
    """Sets values in each annotation; ... removes one, and a function is called with the old."""

    def change(content: dict[str, Any]) -> None:
        for annotation in content["annotations"]:
            for key, value in values.items():
                if value is ...:
                    del annotation[key]
                else:
                    annotation[key] = value(annotation[key]) if callable(value) else value

    return change


def each_image(**values: Any) -> Change:
    def change(content: dict[str, Any]) -> None:
        for image in content["images"]:
            for key, value in values.items():
                image[key] = value(image[key])

    return change


@pytest.mark.parametrize(
    "change",
    [
        each_annotation(id=lambda i: i - 1),
        each_annotation(id=...),
        each_annotation(id=7),
        each_annotation(id=lambda i: f"a{i}"),
        each_annotation(iscrowd=..., area=...),
        each_annotation(iscrowd=None, area=None),
        each_annotation(iscrowd=False),
        each_annotation(iscrowd="0"),
        each_annotation(bbox=lambda b: [str(v) for v in b]),
        each_annotation(image_id=str, category_id=float, area=str),
        each_annotation(category_id=str),
        each_image(width=float, height=str),
        each_image(id=float),
        each_image(id=str),
        each_image(id=lambda i: f"{i:06d}"),
        each_annotation(image_id=lambda i: f"{i:06d}"),
        each_annotation(image_id=lambda i: f"{i}.0"),
        lambda content: content["categories"].append({"id": 1, "name": "CAT "}),
        lambda content: content["categories"].reverse(),
        lambda content: content["categories"].append({"id": 90, "name": "unused"}),
        lambda content: content.update(info=None, licenses=[{}]),
    ],
)
def test_values_with_one_reading_are_read(tmp_path: Path, change: Change) -> None:
    loaded = load_annotated(coco_set(tmp_path, change))
    assert boxes_of(loaded) == truth()
    assert not found(loaded, MENDED) and not found(loaded, SKIPPED)
    assert list(loaded.data.classes)[:2] == ["cat", "dog"]


@pytest.mark.parametrize(
    "encode",
    [
        lambda text: b"\xef\xbb\xbf" + text.encode(),
        lambda text: text.encode("utf-16"),
        lambda text: text.encode("utf-16-le"),
        lambda text: f"\r\n{json.dumps(json.loads(text), indent=1)}\r\n\r\n".replace(
            "\n", "\r\n"
        ).encode(),
    ],
)
def test_encodings(tmp_path: Path, encode: Callable[[str], bytes]) -> None:
    def change(content: dict[str, Any]) -> None:
        content["categories"][0]["name"] = "猫"

    loaded = load_annotated(coco_set(tmp_path, change, encode=encode))
    assert loaded.data.classes == ["猫", "dog"]
    assert loaded.data.num_things == 4


def test_gzip(tmp_path: Path) -> None:
    packed = coco_set(tmp_path / "good", encode=lambda text: gzip.compress(text.encode()))
    assert boxes_of(load_annotated(packed)) == truth()
    cut = coco_set(tmp_path / "cut", encode=lambda text: gzip.compress(text.encode())[:-30])
    with pytest.raises(ValueError, match=r"ann.json is a damaged gzip file: "):
        load_annotated(cut)


def test_ids_with_zeros_are_numbers_only_where_these_differ(tmp_path: Path) -> None:
    def change(content: dict[str, Any]) -> None:
        for image, text in zip(content["images"], ("01", "1", "03", "4"), strict=True):
            image["id"] = text
        for annotation, text in zip(content["annotations"], ("01", 1, 3, "0004"), strict=True):
            annotation["image_id"] = text
        content["annotations"].append({**content["annotations"][0], "image_id": "001"})

    loaded = load_annotated(coco_set(tmp_path, change))
    assert boxes_of(loaded) == truth()
    assert found(loaded, SKIPPED) == {"annotation of an image that is not listed": 1}


def test_text_in_another_encoding_is_refused(tmp_path: Path) -> None:
    spec = coco_set(tmp_path, encode=lambda text: text.replace("p0", "f\u00fcr").encode("latin-1"))
    with pytest.raises(ValueError, match=r"ann.json is not utf-8 text \(byte \d+\): save it in"):
        load_annotated(spec)


def test_an_image_without_a_box_takes_that_of_its_mask(tmp_path: Path) -> None:
    runs = [60 * 10 + 8, 30, 60 * 80 - 60 * 10 - 38]

    def change(content: dict[str, Any]) -> None:
        content["annotations"][0] |= {"bbox": None, "area": None}
        content["annotations"][1]["bbox"] = []
        content["annotations"][2] |= {
            "bbox": None,
            "segmentation": {"size": [60, 80], "counts": runs},
        }
        del content["annotations"][3]["segmentation"], content["annotations"][3]["bbox"]

    loaded = load_annotated(coco_set(tmp_path, change))
    expected = truth()
    expected["p2.png"] = [("cat", (10, 8, 11, 38))]
    expected["p3.png"] = []
    assert boxes_of(loaded) == expected
    assert found(loaded, MENDED) == {"no box: that of the mask": 3}
    assert found(loaded, SKIPPED) == {"annotation without a box": 1}


@pytest.mark.parametrize("size", [(80, 60), (0, 0)])
def test_the_box_of_a_mask_is_that_of_its_part_in_the_image(
    tmp_path: Path, size: tuple[int, int]
) -> None:
    good, outside = [50, 8, 78, 8, 78, 38, 50, 38], [300, 200, 320, 200, 320, 220]

    def change(content: dict[str, Any]) -> None:
        content["images"][0].update(width=size[0], height=size[1])
        parts = [outside, [1, 1, 2, 2], [1, 2, float("nan"), 4, 5, 6], good]
        content["annotations"][0] |= {"bbox": None, "segmentation": parts}
        content["annotations"][1] |= {"bbox": None, "segmentation": [outside]}
        rle = {"size": [80, 60], "counts": [0, 4800]}  # height and width exchanged
        content["annotations"][2] |= {"bbox": None, "segmentation": rle}

    loaded = load_annotated(coco_set(tmp_path, change))
    boxes = {"p0.png": [("cat", (50, 8, 78, 38))], "p1.png": [], "p2.png": []}
    assert boxes_of(loaded) == {**truth(), **boxes}


@pytest.mark.parametrize("other", [{}, {"id": 9}, {"id": 9, "file_name": "images/p1.png"}])
def test_an_image_listed_twice_is_one_with_all_its_annotations(
    tmp_path: Path, other: dict[str, Any]
) -> None:
    def change(content: dict[str, Any]) -> None:
        again = {**content["images"][1], **other}
        content["images"].append(again)
        same = {**content["annotations"][1], "id": 11, "image_id": again["id"]}
        more = {**same, "id": 12, "bbox": [1, 2, 20, 10]}
        content["annotations"] += [same, more]

    loaded = load_annotated(coco_set(tmp_path, change))
    expected = truth()
    expected["p1.png"].append(("dog", (1, 2, 21, 12)))
    assert boxes_of(loaded) == expected
    assert found(loaded, MENDED)["image listed twice, its annotations united"] == 1


@pytest.mark.parametrize(
    "copy",
    [
        {"area": None},
        {"segmentation": []},
        {
            "bbox": ["30", "20.2", "32", "23.8"],
            "segmentation": [["30", "20", "62", "20", "62", "44"]],
        },
    ],
)
@pytest.mark.parametrize("masks", [False, True])
@pytest.mark.parametrize("first", [1, -1])
def test_objects_of_an_image_listed_twice_are_equal_by_class_and_box(
    tmp_path: Path, copy: dict[str, Any], masks: bool, first: int
) -> None:
    def change(content: dict[str, Any]) -> None:
        content["images"].append({**content["images"][1], "id": 9})
        content["annotations"].append({**content["annotations"][1], "image_id": 9, **copy})
        content["annotations"] = content["annotations"][::first]

    loaded = load_annotated(coco_set(tmp_path, change), masks=masks)
    assert boxes_of(loaded, digits=0) == truth()
    assert (loaded.data.images[1].things[0].mask is not None) == masks


def test_a_box_beyond_an_image_listed_twice_is_one_of_four(tmp_path: Path) -> None:
    """Not two of five, which were too many."""

    def change(content: dict[str, Any]) -> None:
        content["annotations"][1].update(bbox=[30, 20, 300, 24])
        content["images"].append({**content["images"][1], "id": 9})
        content["annotations"].append({**content["annotations"][1], "image_id": 9})

    loaded = load_annotated(coco_set(tmp_path, change))
    assert boxes_of(loaded)["p1.png"] == [("dog", (30, 20, WIDTH, 44))]


def test_a_box_clipped_in_one_entry_of_an_image_only_is_one(tmp_path: Path) -> None:
    def change(content: dict[str, Any]) -> None:
        content["images"].append({**content["images"][1], "id": 9})
        content["annotations"][1].update(bbox=[30, 20, 300, 24])
        clipped = {"image_id": 9, "bbox": [30, 20, WIDTH - 30, 24]}
        content["annotations"].append({**content["annotations"][1], **clipped})

    loaded = load_annotated(coco_set(tmp_path, change))
    assert boxes_of(loaded)["p1.png"] == [("dog", (30, 20, WIDTH, 44))]


@pytest.mark.parametrize("size", [(40, 30), (60, 80)])
def test_an_image_listed_twice_with_two_sizes_is_refused(
    tmp_path: Path, size: tuple[int, int]
) -> None:
    def change(content: dict[str, Any]) -> None:
        again = {**content["images"][1], "id": 9, "width": size[0], "height": size[1]}
        content["images"].append(again)

    message = (
        f"image 2 and ann.json: image 9 are the same image, but of the sizes 80 x 60 and {size[0]}"
    )
    with pytest.raises(ValueError, match=message):
        load_annotated(coco_set(tmp_path, change))


def test_one_id_for_two_files_is_refused(tmp_path: Path) -> None:
    spec = coco_set(tmp_path, lambda content: content["images"][1].update(id=1))
    with pytest.raises(ValueError, match=r"image id 1 stands for two files, p0.png and p1.png"):
        load_annotated(spec)


@pytest.mark.parametrize(
    ("categories", "kind"),
    [
        (
            [
                {"id": 0, "name": "pets", "supercategory": "none"},
                {"id": 1, "name": "cat", "supercategory": "pets"},
                {"id": 2, "name": "dog", "supercategory": "pets"},
            ],
            "root category without annotations, dropped",
        ),
        (
            [
                {"id": 0, "name": "_background_", "supercategory": None},
                {"id": 1, "name": "cat"},
                {"id": 2, "name": "dog"},
            ],
            "background category without annotations, dropped",
        ),
        (
            [{"id": 0, "name": "cat"}, {"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
            "category of the same name as another, merged into 'cat'",
        ),
        (
            [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}, {"id": 5, "name": " Dog"}],
            "category of the same name as another, merged into 'dog'",
        ),
    ],
)
def test_root_categories_and_equal_names(
    tmp_path: Path, categories: list[dict[str, Any]], kind: str
) -> None:
    loaded = load_annotated(
        coco_set(tmp_path, lambda content: content.update(categories=categories))
    )
    assert boxes_of(loaded) == truth()
    assert (loaded.data.classes, loaded.data.category_ids) == (["cat", "dog"], [1, 2])
    assert found(loaded, MENDED) == {kind: 1}


def test_two_categories_of_one_name_with_annotations_are_merged(tmp_path: Path) -> None:
    def change(content: dict[str, Any]) -> None:
        content["categories"].append({"id": 7, "name": "Cat"})
        content["annotations"][2]["category_id"] = 7

    loaded = load_annotated(coco_set(tmp_path, change))
    assert boxes_of(loaded) == truth()
    assert loaded.data.category_aliases == {7: 1}


def test_names_in_two_normal_forms_are_one(tmp_path: Path) -> None:
    def change(content: dict[str, Any]) -> None:
        content["categories"][0]["name"] = "f\u00fcr"
        content["categories"].append({"id": 7, "name": "fu\u0308r"})
        content["annotations"][2]["category_id"] = 7

    loaded = load_annotated(coco_set(tmp_path, change), classes=["dog", "Fu\u0308r"])
    assert loaded.data.classes == ["dog", "Fu\u0308r"]
    assert [image.things[0].label for image in loaded.data.images] == ["Fu\u0308r", "dog"] * 2


def test_an_annotation_listed_twice_is_used_once(tmp_path: Path) -> None:
    """Equal in all its values; others of the same id are other objects."""

    def change(content: dict[str, Any]) -> None:
        first = content["annotations"][0]
        content["annotations"] += [dict(first), {**first, "bbox": [1, 1, 9, 9]}, {**first, "id": 9}]

    loaded = load_annotated(coco_set(tmp_path, change))
    boxes = [("cat", box) for box in (BOXES[0], (1, 1, 10, 10), BOXES[0])]
    assert boxes_of(loaded) == {**truth(), "p0.png": boxes}
    assert found(loaded, MENDED) == {"annotation listed twice, used once": 1}


def test_an_annotation_of_an_unknown_image_is_skipped(tmp_path: Path) -> None:
    def change(content: dict[str, Any]) -> None:
        content["annotations"].append({**content["annotations"][0], "image_id": 99, "id": 50})

    loaded = load_annotated(coco_set(tmp_path, change))
    assert boxes_of(loaded) == truth()
    assert found(loaded, SKIPPED) == {"annotation of an image that is not listed": 1}
    text = loaded.findings.as_text()
    assert "ann.json: annotation 50" in text


def drop_images(content: dict[str, Any]) -> None:
    content["images"], content["annotations"] = [], []


def other_images(content: dict[str, Any]) -> None:
    for annotation in content["annotations"]:
        annotation["image_id"] += 100


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (each_annotation(category_id=9), "annotation 1 has the category_id 9, which no category"),
        (each_annotation(category_id=None), "annotation 1 has the category_id None"),
        (each_annotation(iscrowd="perhaps"), "has the iscrowd 'perhaps'; it must be 0 or 1"),
        (each_image(id=lambda i: None), "image number 0 has the id None"),
        (each_image(file_name=lambda name: 5), "image 1 has the file_name 5"),
        (each_image(file_name=lambda name: None), "ann.json: image 1 has no file_name"),
        (lambda content: content.update(categories=[]), "ann.json has no categories"),
        (lambda content: content.update(images={}), "is not a COCO annotation file"),
        (lambda content: content.update(images=[3]), "an entry of images is not an object"),
        (lambda c: c["categories"].append({"id": 1, "name": "x"}), "id 1 stands for 'cat' and 'x'"),
        (lambda c: c["categories"][0].update(name=None), "category number 0 has the id 1 and the"),
        (drop_images, "ann.json lists no images"),
        (other_images, "no annotation has the image_id of an image that is listed"),
        (lambda content: content.update(annotations=[]), "ann.json has no annotations"),
        (lambda content: content.pop("annotations"), "ann.json has no annotations"),
        (lambda content: content.update(annotations=None), "ann.json has no annotations"),
        (each_annotation(iscrowd=1), "has crowds only"),
        (each_annotation(bbox="5, 5, 9, 9"), r"left \(4 x box that is not four numbers\)"),
        (each_annotation(bbox=[5, 5, 0, 5]), r"no object is left \(4 x box of width or height 0\)"),
    ],
)
def test_what_has_no_reading_is_refused(tmp_path: Path, change: Change, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_annotated(coco_set(tmp_path, change))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.json", '{"shapes": [], "imagePath": "a.png"}', "is a labelme file; convert the folder"),
        ("a.xml", "<?xml version='1.0'?>\n<annotations><version/></annotations>", "is a CVAT XML"),
        ("a.xml", "<annotation><object/></annotation>", "is in VOC form: give voc:FOLDER:SPLIT"),
        ("a.xml", "<svg/>", "is XML, not a COCO annotation file; COCO JSON, VOC XML and YOLO are"),
        (
            "a.csv",
            "file,xmin,ymin,xmax,ymax,class\n",
            "is a CSV table, .*; convert it to COCO JSON",
        ),
        ("a.txt", "a.png,1,2,3,4,cat\nb.png,1,2,3,4,cat\n", "is a CSV table"),
        ("a.json", '[{"image_id": 1, "score": 0.5}]', "is a list of results, not of annotations"),
        ("a.json", '[{"annotations": [], "data": {}}]', "is a Label Studio file; export from"),
        ("a.json", '[{"image": "a.png", "annotations": []}]', "is a CreateML file; export COCO"),
        ("a.json", '{"a.png12": {"filename": "a.png", "regions": []}}', "VGG Image Annotator"),
        ("a.json", '[{"image_id": 1, "caption": "a"}]', "is a list of annotations without images"),
        ("a.json", '{"annotations": [{"caption": "a"}]}', "has captions, not objects; give the"),
        ("a.json", '{"annotations": [{"segments_info": []}]}', "has panoptic segments, not object"),
        ("a.json", '{"items": [], "categories": {}}', "is a Datumaro file; convert it with datum"),
        ("a.json", "version https://git-lfs.github.com/spec/v1", "is a Git LFS pointer, not the"),
        ("a.json", "<!DOCTYPE html>\n<html></html>", "is an HTML page, not annotations"),
        ("a.json", "PK\3\4", "is a zip archive: unpack it"),
        ("a.json", "[" * 100_000, "is not valid JSON: maximum recursion depth"),
        ("a.json", "{", "is not valid JSON"),
        ("a.json", "5", "is not a COCO annotation file: it needs images, annotations, categories"),
    ],
)
def test_other_formats_are_named(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=message):
        load_annotated(CocoSpec(tmp_path / name))


@pytest.mark.parametrize(
    ("json_name", "images"),
    [
        ("train/_annotations.coco.json", "train"),  # Roboflow
        ("annotations/instances_default.json", "images"),  # CVAT
        ("annotations/instances_default.json", "images/default"),
        ("annotations/instances_train2017.json", "train2017"),  # COCO itself
        ("dataset.json", "."),  # labelme2coco
        ("result.json", "images"),  # Label Studio
    ],
)
def test_images_are_found_where_the_tools_put_them(
    tmp_path: Path, json_name: str, images: str
) -> None:
    content = coco_content(write_pictures(tmp_path / images))
    (tmp_path / json_name).parent.mkdir(exist_ok=True)
    (tmp_path / json_name).write_text(json.dumps(content))
    loaded = load_annotated(CocoSpec(tmp_path / json_name))
    assert boxes_of(loaded) == truth()
    assert {i.file for i in loaded.data.images} == {
        tmp_path / images / f"p{n}.png" for n in range(4)
    }


@pytest.mark.parametrize(
    "json_name", ["_annotations.coco.json", "annotations/instances_default.json"]
)
def test_a_folder_stands_for_the_file_in_it(tmp_path: Path, json_name: str) -> None:
    write_pictures(tmp_path / "images")
    (tmp_path / json_name).parent.mkdir(exist_ok=True)
    (tmp_path / json_name).write_text(json.dumps(coco_content([f"p{n}.png" for n in range(4)])))
    assert boxes_of(load_annotated(CocoSpec(tmp_path))) == truth()
    with pytest.raises(ValueError, match="images is a folder: give the file with the annotations"):
        load_annotated(CocoSpec(tmp_path / "images"))


def test_without_images_the_sizes_of_the_file_count(tmp_path: Path) -> None:
    spec = coco_set(
        tmp_path, lambda content: content["annotations"][3].update(bbox=[44, 4, 99, 48])
    )
    loaded = load_annotated(CocoSpec(spec.json_file), need_images=False)
    assert [image.things[0].box for image in loaded.data.images] == [*BOXES[:3], (44, 4, 80, 52)]
    assert loaded.files == {}
