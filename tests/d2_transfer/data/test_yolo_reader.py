"""YOLO data in the folders that tools write."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from annotated_sets import (
    BOXES,
    HEIGHT,
    LABELS,
    WIDTH,
    boxes_of,
    save_turned,
    truth,
    write_pictures,
    yolo_polygon,
    yolo_row,
    yolo_set,
)

from d2_transfer.data.findings import MENDED, NOTED, SKIPPED
from d2_transfer.data.load import load_annotated
from d2_transfer.data.spec import YoloSpec

NAMES = "names: [cat, dog]\n"


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"yaml": "path: .\ntrain: [images/train]\nnc: 2\nnames:\n  0: cat\n  1: dog\n"},
        {
            "yaml": f"train: ../train/images\nval: ../valid/images\n{NAMES}",
            "images": "train/images",
            "labels": "train/labels",
        },
        {
            "yaml": f"train: /content/set/train/images\n{NAMES}",
            "images": "train/images",
            "labels": "train/labels",
        },
        {"yaml": f"path: /content/set\ntrain: images/train\n{NAMES}"},
        {"yaml": f"path: ../elsewhere\ntrain: images/train/\n{NAMES}"},
        {"yaml": f"train: C:\\data\\images\\train\n{NAMES}"},
        {"yaml": f"train: .\n{NAMES}", "images": ".", "labels": "."},
        {"yaml": f"train: images\n{NAMES}", "images": "images", "labels": "labels"},
        {"yaml": f"train: data\n{NAMES}", "images": "data", "labels": "data"},
        {
            "yaml": f"train: a/images/b/images\n{NAMES}",
            "images": "a/images/b/images",
            "labels": "a/images/b/labels",
        },
        {"row": lambda n: f"\r\n{yolo_row(n)}\r\n\r\n"},
        {"row": lambda n: "\ufeff" + yolo_row(n)},
        {"row": lambda n: yolo_row(n).replace(" ", "\t")},
        {"row": lambda n: f"{n % 2}.0{yolo_row(n)[1:]}"},
        {"row": lambda n: yolo_row(n).replace(" ", ";")},
        {"row": lambda n: yolo_row(n).replace(" ", ", ")},
        {"row": lambda n: yolo_row(n).replace(".", ",")},
        {"row": yolo_polygon},
        *(
            {"yaml": f"train: {images}\n{NAMES}", "images": images, "labels": labels}
            for images, labels in (
                ("JPEGImages", "labels"),
                ("imgs", "labels"),
                ("imgs/train", "labels/train"),
                ("train", "labels/train"),
            )
        ),
        {
            "yaml": f"train: images/train\nkpt_shape: [3, 2]\n{NAMES}",
            "row": lambda n: yolo_row(n) + " .1 .2" * 3,
        },
        {
            "yaml": f"train: images/train\nkpt_shape: [2, 3]\n{NAMES}",
            "row": lambda n: yolo_row(n) + " .1 .2 2" * 2,
        },
    ],
)
def test_layouts_and_labels_with_one_reading(tmp_path: Path, options: dict[str, Any]) -> None:
    loaded = load_annotated(yolo_set(tmp_path, **options))
    assert boxes_of(loaded) == truth()
    assert loaded.findings.counts == {}
    assert (loaded.data.classes, loaded.data.category_ids) == (["cat", "dog"], [1, 2])


@pytest.mark.parametrize(
    "lines", ["./images/train/{}\n", "{folder}/images/train/{}\r\n", "images/train/{}\n\n"]
)
def test_a_list_of_images(tmp_path: Path, lines: str) -> None:
    spec = yolo_set(tmp_path, yaml=f"train: lists/train.txt\n{NAMES}")
    (tmp_path / "lists").mkdir()
    text = "".join(lines.format(f"p{n}.png", folder=tmp_path) for n in range(4))
    (tmp_path / "lists" / "train.txt").write_text(text, newline="")
    loaded = load_annotated(spec)
    assert boxes_of(loaded) == truth()
    assert loaded.findings.counts == {}


def test_a_list_with_paths_of_another_machine(tmp_path: Path) -> None:
    spec = yolo_set(tmp_path, yaml=f"train: train.txt\n{NAMES}")
    lines = [f"/home/other/set/images/train/p{n}.png\n" for n in range(4)]
    (tmp_path / "train.txt").write_text("".join(lines))
    loaded = load_annotated(spec)
    assert boxes_of(loaded) == truth()
    assert loaded.findings.as_dict()[MENDED] == {"file name that almost fits": 4}


@pytest.mark.parametrize(("split", "key"), [("val", "val"), ("valid", "val"), ("val", "valid")])
def test_val_may_be_called_valid(tmp_path: Path, split: str, key: str) -> None:
    spec = yolo_set(
        tmp_path,
        yaml=f"{key}: ../{key}/images\n{NAMES}",
        images="valid/images",
        labels="valid/labels",
    )
    assert boxes_of(load_annotated(YoloSpec(spec.yaml, split))) == truth()


def test_images_without_labels_are_background(tmp_path: Path) -> None:
    rows = {1: "", 2: None, 3: "\r\n"}
    loaded = load_annotated(yolo_set(tmp_path, row=lambda n: rows.get(n, yolo_row(n))))
    assert boxes_of(loaded) == {**truth(), "p1.png": [], "p2.png": [], "p3.png": []}
    assert loaded.findings.as_dict()[NOTED]["image without objects (background)"] == 3


def test_boxes_are_relative_to_the_turned_image(tmp_path: Path) -> None:
    loaded = load_annotated(yolo_set(tmp_path, save=save_turned(6)))
    image = loaded.data.images[0]
    assert (image.width, image.height, image.turned) == (HEIGHT, WIDTH, True)
    x0, y0, x1, y1 = BOXES[0]
    expected = (x0 / WIDTH * HEIGHT, y0 / HEIGHT * WIDTH, x1 / WIDTH * HEIGHT, y1 / HEIGHT * WIDTH)
    assert image.things[0].box == pytest.approx(expected, abs=1e-3)


def test_polygons_are_masks(tmp_path: Path) -> None:
    loaded = load_annotated(yolo_set(tmp_path, row=yolo_polygon), masks=True)
    x0, y0, x1, y1 = BOXES[0]
    mask = loaded.data.images[0].things[0].mask
    assert isinstance(mask, list)
    assert mask[0] == pytest.approx([x0, y0, x1, y0, x1, y1, x0, y1], abs=1e-3)
    assert loaded.mask_format == "polygon"


def test_boxes_beside_polygons_are_boxes(tmp_path: Path) -> None:
    rows = {0: yolo_row(0)}
    loaded = load_annotated(
        yolo_set(tmp_path, row=lambda n: rows.get(n, yolo_polygon(n))), masks=True
    )
    assert boxes_of(loaded) == truth()
    assert loaded.findings.as_dict()[MENDED] == {"object without a mask, its box used alone": 1}


@pytest.mark.parametrize(
    ("text", "action", "kind"),
    [
        ("{} 0.9", MENDED, "confidence after the box, ignored"),
        ("{0}\n{0}", MENDED, "label twice in a file, used once"),
        ("{}\n0 .5 .5", SKIPPED, "label that is neither a box nor a polygon"),
        ("{}\n0 .5 .5 .1 x", SKIPPED, "label that is neither a box nor a polygon"),
        ("{}\n0 .1 .1 .2 .2 .3 .3 .4", SKIPPED, "polygon with an odd number of coordinates"),
        ("{}\n0 .1 .1 .2 nan .3 .3", SKIPPED, "polygon that is not finite"),
        ("{}\n0 .5 .5 0 .1", SKIPPED, "box of width or height 0"),
        ("{}\n0 .5 nan .1 .1", SKIPPED, "box that is not finite"),
        ("{}\n0 .5 .5 -.1 .1", SKIPPED, "box of negative width or height"),
        ("{}\n0 1.5 .5 .1 .1", SKIPPED, "box wholly outside its image"),
    ],
)
def test_labels_that_are_mended_or_skipped(
    tmp_path: Path, text: str, action: str, kind: str
) -> None:
    rows = {1: text.format(yolo_row(1))}
    loaded = load_annotated(yolo_set(tmp_path, row=lambda n: rows.get(n, yolo_row(n))))
    assert boxes_of(loaded) == truth()
    assert loaded.findings.as_dict() == {action: {kind: 1}}
    assert "p1.txt" in next(iter(loaded.findings.places.values()))[0]


@pytest.mark.parametrize("name", ["p1.TXT", "P1.txt", "p1.png.txt"])
def test_label_files_in_another_spelling_are_found(tmp_path: Path, name: str) -> None:
    """Before, their images were background."""
    spec = yolo_set(tmp_path)
    folder = tmp_path / "labels" / "train"
    (folder / "p1.txt").rename(folder / name)
    loaded = load_annotated(spec)
    assert boxes_of(loaded) == truth()
    assert loaded.findings.counts == {}


@pytest.mark.parametrize("labels", ["labels/train", "images/train"])
def test_label_files_without_an_image_are_listed(tmp_path: Path, labels: str) -> None:
    spec = yolo_set(tmp_path, labels=labels)
    (tmp_path / "images" / "train" / "p3.png").unlink()
    for name, text in (("classes.txt", "cat\ndog\n"), ("._p0.txt", "\0")):
        (tmp_path / labels / name).write_text(text)
    loaded = load_annotated(spec)
    expected = truth()
    del expected["p3.png"]
    assert boxes_of(loaded) == expected
    assert loaded.findings.as_dict() == {SKIPPED: {"label file without an image": 1}}
    (tmp_path / "train.txt").write_text("images/train/p0.png\nimages/train/p1.png\n")
    spec.yaml.write_text(f"train: train.txt\n{NAMES}")
    assert load_annotated(spec).findings.counts == {}  # a list has some of the images


@pytest.mark.parametrize(
    ("row", "kinds"),
    [
        (
            lambda n: f"{yolo_row(n)} 0.{n + 3} {n + 1}",
            {"confidence and number of a track after the box, ignored": 4},
        ),
        (lambda n: f"{yolo_row(n)} {n + 4}", {"number of a track after the box, ignored": 4}),
        (lambda n: f"{yolo_polygon(n)} 0.9", {"confidence after the polygon, ignored": 4}),
        (lambda n: yolo_row(n) + " .3 .3 2 .4 .4 1" * 4, {"keypoints after the box, ignored": 4}),
    ],
)
def test_what_trackers_and_networks_write_after_a_label(
    tmp_path: Path, row: Any, kinds: dict[str, int]
) -> None:
    loaded = load_annotated(yolo_set(tmp_path, row=row))
    assert boxes_of(loaded) == truth()
    assert loaded.findings.as_dict() == {MENDED: kinds}


def test_a_triangle_is_no_box(tmp_path: Path) -> None:
    rows = {1: "1 .1 .1 .5 .1 .5 .6"}
    loaded = load_annotated(yolo_set(tmp_path, row=lambda n: rows.get(n, yolo_row(n))))
    assert boxes_of(loaded)["p1.png"] == [("dog", (8, 6, 40, 36))]


def test_a_link_to_the_folder_that_it_is_in_is_not_followed(tmp_path: Path) -> None:
    """`ln -s` makes one where it is called twice."""
    spec = yolo_set(tmp_path)
    (tmp_path / "images/train/train").symlink_to(tmp_path / "images/train")
    loaded = load_annotated(spec)
    assert boxes_of(loaded) == truth() and len(loaded.data.images) == 4


def test_images_of_one_name_in_two_folders(tmp_path: Path) -> None:
    for part in ("a", "b"):
        yolo_set(
            tmp_path,
            images=f"images/{part}",
            labels=f"labels/{part}",
            yaml=f"train: [images/a, images/b]\n{NAMES}",
        )
    shutil.copy(tmp_path / "images/a/p0.png", tmp_path / "images/a/p0.bmp.png")
    loaded = load_annotated(YoloSpec(tmp_path / "data.yaml", "train"))
    ids = [image.id for image in loaded.data.images]
    assert ids[:3] == ["a/p0.bmp", "a/p0", "a/p1"] and len(set(ids)) == 9


def test_classes_of_one_name_are_merged(tmp_path: Path) -> None:
    yaml = "train: images/train\nnames: [cat, dog, Dog]\nnc: 4\n"
    loaded = load_annotated(
        yolo_set(tmp_path, yaml=yaml, row=lambda n: yolo_row(n).replace("1 ", "2 ", 1))
    )
    assert loaded.data.classes == ["cat", "dog"]
    assert [image.things[0].label for image in loaded.data.images] == LABELS
    assert loaded.findings.as_dict()[MENDED] == {
        "nc 4 with 3 names, the names count": 1,
        "class of the same name as another, merged into 'dog'": 1,
    }


def test_numbers_are_names_where_there_are_none(tmp_path: Path) -> None:
    loaded = load_annotated(yolo_set(tmp_path, yaml="train: images/train\nnc: 2\n"))
    assert loaded.data.classes == ["0", "1"]
    assert loaded.findings.as_dict()[MENDED] == {"classes without names, numbered": 1}


def as_corners(number: int) -> str:
    x0, y0, x1, y1 = BOXES[number]
    return f"{number % 2} {x0 / WIDTH} {y0 / HEIGHT} {x1 / WIDTH} {y1 / HEIGHT}"


def in_pixels(number: int) -> str:
    x0, y0, x1, y1 = BOXES[number]
    return f"{number % 2} {(x0 + x1) / 2} {(y0 + y1) / 2} {x1 - x0} {y1 - y0}"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"row": lambda n: "2 .5 .5 .1 .1"}, "p0.txt: line 1 has the class '2'; .* names 0 to 1"),
        ({"row": lambda n: "cat .5 .5 .1 .1"}, "line 1 has the class 'cat'"),
        ({"row": lambda n: f"{yolo_row(n)} {n - 30.5}"}, "-30.5 after the box .* rotated boxes"),
        ({"row": as_corners}, "all 4 boxes are corners x0, y0, x1, y1, since 4 of them reach"),
        ({"row": in_pixels}, "does the file have pixels instead of numbers relative to the sides"),
        ({"row": lambda n: None}, "no image of the split 'train' has a label file; for .*p0.png"),
        ({"row": lambda n: ""}, "has no annotations"),
        ({"yaml": "train: images/train\nnames: []\n"}, r"names is \[\]; it must be a list"),
        ({"yaml": "train: images/train\nnames: 2\n"}, "names is 2; it must be a list"),
        ({"yaml": "train: images/train\nnames: [cat, null]\n"}, "names has the entry 1: None"),
        ({"yaml": "train: images/train\nnames: {a: b}\n"}, "names has the entry 'a': 'b'"),
        ({"yaml": "train: images/train\nnc: many\n"}, "has no names, and nc is 'many'"),
        ({"yaml": "train: images/train\n"}, "is not a data.yaml of YOLO: it has no names"),
        ({"yaml": "{"}, "is not valid YAML"),
        ({"yaml": f"val: images/train\n{NAMES}"}, "has no split 'train'; it has val"),
        ({"yaml": f"train: images/tarin\n{NAMES}"}, "images/tarin of the split 'train' does not"),
        ({"yaml": f"train: [3]\n{NAMES}"}, r"train is \[3\]; it must be paths"),
        ({"yaml": f"train: images/train\nkpt_shape: 3\n{NAMES}"}, "kpt_shape is 3; it must be two"),
        ({"yaml": f"train: labels/train\n{NAMES}"}, "the split 'train' has no images"),
    ],
)
def test_what_has_no_reading_is_refused(
    tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises((ValueError, OSError), match=message):
        load_annotated(yolo_set(tmp_path, **options))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    write_pictures(tmp_path)
    with pytest.raises(FileNotFoundError, match="data.yaml: no such file"):
        load_annotated(YoloSpec(tmp_path / "data.yaml", "train"))


def test_the_folder_of_the_data_yaml_is_enough(tmp_path: Path) -> None:
    spec = yolo_set(tmp_path)
    assert boxes_of(load_annotated(YoloSpec(tmp_path, "train"))) == truth()
    (tmp_path / "other.yml").write_text(NAMES)
    with pytest.raises(ValueError, match=r"has data.yaml and other.yml; give the file"):
        load_annotated(YoloSpec(tmp_path, "train"))
    spec.yaml.unlink()
    (tmp_path / "other.yml").unlink()
    with pytest.raises(FileNotFoundError, match=r"has no data.yaml; write one.*classes.txt"):
        load_annotated(YoloSpec(tmp_path, "train"))


@pytest.mark.parametrize("split", ["train", "val"])
def test_darknets_files(tmp_path: Path, split: str) -> None:
    """As CVAT exports them: paths start with a folder data that is not there."""
    yolo_set(tmp_path, images="obj_train_data", labels="obj_train_data").yaml.unlink()
    lines = "".join(f"data/obj_train_data/p{number}.png\n" for number in range(4))
    (tmp_path / "train.txt").write_text(lines)
    (tmp_path / "obj.names").write_text("cat\r\ndog\r\n")
    file = tmp_path / "obj.data"
    file.write_text(
        "classes = 2\ntrain = data/train.txt\nvalid= data/train.txt\nnames = data/obj.names\n"
        "backup = backup/\n"
    )
    loaded = load_annotated(YoloSpec(file, split))
    assert boxes_of(loaded) == truth()
    assert loaded.data.classes == ["cat", "dog"]
    assert loaded.findings.as_dict() == {MENDED: {"file name that almost fits": 4}}


def test_names_that_are_truth_values_in_yaml(tmp_path: Path) -> None:
    loaded = load_annotated(yolo_set(tmp_path, yaml="train: images/train\nnames: [yes, No]\n"))
    assert loaded.data.classes == ["yes", "No"]


def test_unicodes_normal_forms_of_a_class_are_one(tmp_path: Path) -> None:
    yaml = "train: images/train\nnames: [f\u00fcr, fu\u0308r]\n"
    assert load_annotated(yolo_set(tmp_path, yaml=yaml)).data.classes == ["f\u00fcr"]
