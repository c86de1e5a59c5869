"""VOC files as tools write them: what is read as it stands, mended, skipped and refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from annotated_sets import BOXES, HEIGHT, LABELS, WIDTH, boxes_of, truth, voc_set, voc_xml

from d2_transfer.data.findings import MENDED, SKIPPED
from d2_transfer.data.load import load_annotated
from d2_transfer.data.spec import VOC_CLASSES, VocSpec

OFTEN = "<pose>Unspecified</pose><truncated>0</truncated><difficult>0</difficult>"


@pytest.mark.parametrize(
    "options",
    [
        {"fields": OFTEN},
        {"fields": ""},
        {"fields": "<difficult>False</difficult>"},
        {"fields": "<difficult/>"},
        {"suffix": ".PNG"},
        {"suffix": ".bmp", "filename": "p0.jpg"},  # the name of the list decides
        {"filename": "C:\\photos\\other.png"},
        {"size": (float(WIDTH), f" {HEIGHT} ")},
        {"lines": b"\xef\xbb\xbfp0  1\r\np1 -1\r\n\r\np2.png\r\nJPEGImages/p3.png 0\r\n"},
        {"lines": b"p0.xml\nAnnotations\\p1.xml\nP2\n/data/JPEGImages/p3.png\n"},
        {"lines": "p0\np1\np2\np3\n".encode("utf-16")},
        {"encode": lambda text: b"\xef\xbb\xbf" + text.encode()},
        {"encode": lambda text: text.encode("utf-16")},
        {"encode": lambda text: b"\r\n" + text.replace("><", ">\r\n<").encode()},
        {"encode": lambda text: f'<?xml version="1.0" encoding="utf-16"?>{text}'.encode()},
        {"lines": None},
        {"lines": None, "suffix": ".JPEG", "fields": "<polygon/>"},
    ],
)
def test_values_with_one_reading_are_read(tmp_path: Path, options: dict[str, Any]) -> None:
    spec = voc_set(tmp_path, classes=("cat", "dog"), **options)
    loaded = load_annotated(spec)
    assert boxes_of(loaded) == truth(options.get("suffix", ".png"))
    assert loaded.findings.counts == {}
    assert [thing.difficult for image in loaded.data.images for thing in image.things] == [
        False
    ] * 4


@pytest.mark.parametrize("encoding", ["GBK", "gb2312", "Shift_JIS", "UTF-8"])
def test_the_declared_encoding_is_used(tmp_path: Path, encoding: str) -> None:
    head = f"<?xml version='1.0' encoding='{encoding}'?>\n"
    spec = voc_set(tmp_path, label="犬", encode=lambda text: (head + text).encode(encoding))
    assert load_annotated(spec).data.classes == ["犬"]


def test_corners_may_be_fractions(tmp_path: Path) -> None:
    spec = voc_set(tmp_path)
    (tmp_path / "Annotations" / "p0.xml").write_text(
        voc_xml(0, corners=(11.5, "9.25", 40.0, 38.75))
    )
    loaded = load_annotated(spec)
    thing = loaded.data.images[0].things[0]
    assert thing.box == (10.5, 8.25, 40, 38.75)
    assert thing.voc_box == (11.5, 9.25, 40, 38.75)


def test_difficult_objects_are_marked(tmp_path: Path) -> None:
    loaded = load_annotated(voc_set(tmp_path, fields="<difficult>1</difficult>"))
    assert all(thing.difficult for image in loaded.data.images for thing in image.things)


def test_corners_in_the_wrong_order_are_swapped(tmp_path: Path) -> None:
    spec = voc_set(tmp_path)
    x0, y0, x1, y1 = BOXES[0]
    (tmp_path / "Annotations" / "p0.xml").write_text(voc_xml(0, corners=(x1, y0 + 1, x0 + 1, y1)))
    loaded = load_annotated(spec)
    assert boxes_of(loaded) == truth()
    assert loaded.findings.as_dict()[MENDED] == {"corners in the wrong order, swapped": 1}


@pytest.mark.parametrize("corners", [(12, 9, 12, 38), (12, 9, 40, 9), (12, 9, 12, 9)])
def test_a_box_without_extent_is_skipped(tmp_path: Path, corners: tuple[int, ...]) -> None:
    spec = voc_set(tmp_path)
    (tmp_path / "Annotations" / "p0.xml").write_text(voc_xml(0, corners=corners))
    loaded = load_annotated(spec)
    assert boxes_of(loaded) == {**truth(), "p0.png": []}
    assert loaded.findings.as_dict()[SKIPPED] == {"box of width or height 0": 1}


@pytest.mark.parametrize("corners", [("", 1, 5, 5), ("a", 1, 5, 5)])
def test_an_object_without_four_numbers_is_skipped(tmp_path: Path, corners: Any) -> None:
    spec = voc_set(tmp_path)
    (tmp_path / "Annotations" / "p0.xml").write_text(voc_xml(0, corners=corners))
    loaded = load_annotated(spec)
    assert loaded.findings.as_dict()[SKIPPED] == {"object without a <bndbox> of four numbers": 1}


def test_a_clipped_box_is_clipped_for_vocs_metric_too(tmp_path: Path) -> None:
    spec = voc_set(tmp_path)
    (tmp_path / "Annotations" / "p3.xml").write_text(voc_xml(3, corners=(0, 5, 200, 52)))
    thing = load_annotated(spec).data.images[3].things[0]
    assert thing.box == (0, 4, WIDTH, 52)
    assert thing.voc_box == (1, 5, WIDTH, 52)


def test_an_image_listed_twice_is_used_once(tmp_path: Path) -> None:
    loaded = load_annotated(voc_set(tmp_path, lines=b"p0\np1\np2\np3\np1.png\n"))
    assert boxes_of(loaded) == truth()
    assert loaded.findings.as_dict()[MENDED] == {"image listed twice, used once": 1}


def test_a_listed_image_without_annotations_is_skipped(tmp_path: Path) -> None:
    loaded = load_annotated(voc_set(tmp_path, lines=b"p0\np1\nnone\n"))
    assert len(loaded.data.images) == 2
    assert loaded.findings.as_dict()[SKIPPED] == {"image without an annotation file": 1}


@pytest.mark.parametrize("size", [None, (0, 0), (WIDTH, 0), ("", "")])
def test_the_size_may_be_missing(tmp_path: Path, size: Any) -> None:
    loaded = load_annotated(voc_set(tmp_path, size=size))
    assert boxes_of(loaded) == truth()
    assert {(image.width, image.height) for image in loaded.data.images} == {(WIDTH, HEIGHT)}
    assert loaded.findings.as_dict()[MENDED] == {"no width or height, the image's used": 4}


def relabel(folder: Path, names: list[str]) -> None:
    for number, name in enumerate(names):
        (folder / "Annotations" / f"p{number}.xml").write_text(voc_xml(number, label=name))


def test_classes_are_vocs_twenty_only_if_all_are_among_them(tmp_path: Path) -> None:
    spec = voc_set(tmp_path)
    assert load_annotated(spec).data.classes == list(VOC_CLASSES)
    relabel(tmp_path, ["dog", "zebra", "cat", "dog"])
    loaded = load_annotated(spec)
    assert loaded.data.classes == ["cat", "dog", "zebra"]
    assert loaded.data.category_ids == [1, 2, 3]


def test_classes_that_differ_in_case_are_one(tmp_path: Path) -> None:
    spec = voc_set(tmp_path)
    relabel(tmp_path, ["Ball", "ball", "ball", "Box"])
    loaded = load_annotated(spec)
    assert loaded.data.classes == ["Ball", "Box"]
    assert loaded.findings.as_dict()[MENDED] == {"class that differs in case, read as 'Ball'": 2}
    upper = VocSpec(tmp_path, "train", classes=("BOX", "ball"))
    loaded = load_annotated(upper)
    assert loaded.data.classes == ["BOX", "ball"]
    assert [image.things[0].label for image in loaded.data.images] == [
        "ball",
        "ball",
        "ball",
        "BOX",
    ]


def test_images_in_subfolders(tmp_path: Path) -> None:
    for part in ("a", "b"):
        voc_set(tmp_path / part, lines=None)
    loaded = load_annotated(VocSpec(tmp_path, "all"))
    assert [str(image.id) for image in loaded.data.images] == [
        f"{part}/p{n}" for part in ("a", "b") for n in range(4)
    ]
    assert [i.file for i in loaded.data.images][4] == tmp_path / "b" / "p0.png"


def write_labelme(folder: Path) -> None:
    (folder / "p0.json").write_text('{"shapes": [], "imagePath": "p0.png"}')


def write_yolo(folder: Path) -> None:
    (folder / "data.yaml").write_text("names: [a]\n")


def write_coco(folder: Path) -> None:
    (folder / "ann.json").write_text('{"images": [], "annotations": []}')


def write_cvat(folder: Path) -> None:
    (folder / "annotations.xml").write_text("<annotations><image/></annotations>")


def write_table(folder: Path) -> None:
    (folder / "boxes.csv").write_text("a,b,c,d\n")


def write_nothing(folder: Path) -> None:
    pass


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (write_labelme, r"has labelme files \(p0.json\); convert it with labelme2coco"),
        (write_yolo, r"is in YOLO form: give yolo:.*data.yaml:SPLIT"),
        (write_coco, r"is in COCO form: give coco:.*ann.json"),
        (write_cvat, r"annotations.xml is a CVAT XML file; export from CVAT as COCO 1.0"),
        (write_table, r"boxes.csv is a CSV table"),
        (write_nothing, r"has no annotation files \(\*.xml\)"),
    ],
)
def test_folders_of_other_formats_are_named(
    tmp_path: Path, write: Callable[[Path], None], message: str
) -> None:
    write(tmp_path)
    with pytest.raises(ValueError, match=message):
        load_annotated(VocSpec(tmp_path, "all"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lines": b"\n \n"}, "train.txt lists no images"),
        ({"lines": b"x\ny\n"}, "none of the 2 annotation files exists, such as x.xml"),
        ({"encode": lambda text: b"<annotation>"}, "p0.xml is not valid XML"),
        ({"encode": lambda text: b"<svg></svg>"}, "is not in VOC form: it begins <svg>"),
        ({"label": " "}, "p0.xml: object 1 has no <name>"),
        ({"fields": "<difficult>maybe</difficult>"}, "object 1 has the <difficult> 'maybe'"),
        (
            {"classes": ("cat", "bird")},
            "object 1 has the class 'dog', which is not among cat, bird",
        ),
        ({"classes": ("cat", "dog", "cat")}, "classes cat, dog, cat: one is named twice"),
        ({"encode": lambda t: b"<?xml version='1.0' encoding='x9'?>" + t.encode()}, "'x9' is unk"),
        ({"encode": lambda t: t.replace("cat", "\xe9").encode("latin-1")}, "is not utf-8 text"),
    ],
)
def test_what_has_no_reading_is_refused(
    tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises((ValueError, OSError), match=message):
        load_annotated(voc_set(tmp_path, **options))


def test_a_missing_list_or_folder_is_named(tmp_path: Path) -> None:
    voc_set(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"val.txt does not exist; the split 'all' has all"):
        load_annotated(VocSpec(tmp_path, "val"))
    with pytest.raises(FileNotFoundError, match="nowhere: no such folder"):
        load_annotated(VocSpec(tmp_path / "nowhere", "val"))
    assert [
        i.things[0].label for i in load_annotated(VocSpec(tmp_path, "all")).data.images
    ] == LABELS
