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
        {"lines": b"p0 1 2 1\np1\t0\np2,\n./JPEGImages/p3.png ./Annotations/p3.xml\n"},
        {"lines": b"p0.png p0.xml\np1\np2\np3\n"},
        {"fields": "<difficult>Unspecified</difficult>"},
        {"encode": lambda text: text.replace("tion>", "TION>").replace("xmin>", "XMin>").encode()},
        {"encode": lambda text: text.replace("ion>", 'ion xmlns="http://x.org/a">', 1).encode()},
        {"encode": lambda text: text.replace("</xmin>", ",0</xmin>").encode()},
        {
            "encode": lambda text: (
                b"<?xml version='1.0' encoding='us-ascii'?>"
                + text.replace("<size>", "<path>f\xfcr</path><size>").encode()
            )
        },
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


def move(folder: Path, *places: tuple[str, str]) -> None:
    """Moves the four images and annotations; a place is a pattern of names and a folder."""
    for pattern, target in places:
        (folder / target).mkdir(parents=True, exist_ok=True)
        for file in sorted(folder.glob(pattern)):
            file.rename(folder / target / file.name)


@pytest.mark.parametrize("split", ["train", "valid", "val"])
@pytest.mark.parametrize(
    "folders", [(".", "."), ("Annotations", "JPEGImages"), ("annotations", "images")]
)
def test_a_split_may_be_a_folder(tmp_path: Path, split: str, folders: tuple[str, str]) -> None:
    for part in ("train", "valid"):
        voc_set(tmp_path / part, lines=None)
        if folders[0] != ".":
            move(tmp_path / part, ("*.xml", folders[0]), ("*.png", folders[1]))
    loaded = load_annotated(VocSpec(tmp_path, split))
    assert boxes_of(loaded) == truth()
    assert [image.id for image in loaded.data.images] == ["p0", "p1", "p2", "p3"]
    part = "train" if split == "train" else "valid"
    assert {i.file for i in loaded.data.images} == {*(tmp_path / part).rglob("*.png")}
    assert not loaded.findings.changed
    both = load_annotated(VocSpec(tmp_path, "all"))
    assert len({image.file for image in both.data.images}) == len({i.id for i in both.data.images})
    assert len(both.data.images) == 8


def test_annotations_and_images_may_have_a_folder_for_each_split(tmp_path: Path) -> None:
    for part in ("train", "val"):
        voc_set(tmp_path, lines=None)
        move(tmp_path, ("*.xml", f"annotations/{part}"), ("*.png", f"images/{part}"))
    loaded = load_annotated(VocSpec(tmp_path, "val"))
    assert boxes_of(loaded) == truth()
    assert {image.file.parent.name for image in loaded.data.images if image.file} == {"val"}


def test_names_of_a_list_with_folders_in_another_case(tmp_path: Path) -> None:
    """Two images of one name are two."""
    for part in ("a", "b"):
        voc_set(tmp_path, lines=None)
        move(tmp_path, ("*.xml", f"Annotations/{part}"), ("*.png", f"JPEGImages/{part}"))
    (tmp_path / "Train.txt").write_text("A/p0.png\nB/p0.png\na/p1\n")
    loaded = load_annotated(VocSpec(tmp_path, "train"))
    assert [image.id for image in loaded.data.images] == ["a/p0", "b/p0", "a/p1"]
    assert loaded.findings.skipped_as_text() == ""


def test_lists_of_single_classes_are_united(tmp_path: Path) -> None:
    spec = voc_set(tmp_path)
    folder = tmp_path / "ImageSets" / "Main"
    (folder / "train.txt").unlink()
    (folder / "cat_train.txt").write_text("p0  1\np1 -1\np2  1\n")
    (folder / "dog_train.txt").write_text("p0 -1\np1  1\np2 -1\np3  1\n")
    loaded = load_annotated(spec)
    assert boxes_of(loaded) == truth()
    assert loaded.findings.as_dict() == {
        "noted": {"list of a class, whose images are used": 2, "class without objects": 18}
    }


def test_a_list_in_another_folder_is_found(tmp_path: Path) -> None:
    voc_set(tmp_path / "VOC2007")
    assert boxes_of(load_annotated(VocSpec(tmp_path, "train"))) == truth()
    voc_set(tmp_path / "VOC2012")
    with pytest.raises(FileNotFoundError, match="train.txt does not exist"):
        load_annotated(VocSpec(tmp_path, "train"))


def change_first(folder: Path, old: str, new: str, encoding: str = "utf-8") -> None:
    text = voc_xml(0)
    assert old in text
    (folder / "Annotations" / "p0.xml").write_bytes(text.replace(old, new, 1).encode(encoding))


LAUGHS = "".join(f'<!ENTITY a{n} "{f"&a{n - 1};" * 10}">' for n in range(1, 10))


@pytest.mark.parametrize(
    "new",
    [
        "",
        "<annotation>",
        f'<!DOCTYPE x [<!ENTITY a0 "ha">{LAUGHS}]><annotation>&a9;</annotation>',
    ],
)
def test_a_damaged_file_is_refused(tmp_path: Path, new: str) -> None:
    spec = voc_set(tmp_path)
    (tmp_path / "Annotations" / "p0.xml").write_text(new)
    with pytest.raises(ValueError, match=r"p0.xml is not valid XML"):
        load_annotated(spec)


def test_other_xml_among_the_annotations_is_skipped(tmp_path: Path) -> None:
    voc_set(tmp_path)
    write_cvat(tmp_path / "Annotations")
    loaded = load_annotated(VocSpec(tmp_path, "all"))
    assert boxes_of(loaded) == truth()
    assert loaded.findings.as_dict()[SKIPPED] == {"XML file that is not in VOC form": 1}


@pytest.mark.parametrize(
    ("old", "new", "encoding", "kind"),
    [
        ("<size>", "<path>a&b</path><size>", "utf-8", "'&' in XML, read as '&amp;'"),
        (
            "<size>",
            "<path>f\xfcr</path><size>",
            "latin-1",
            "bytes beside the objects that are not text, not used",
        ),
        (
            voc_xml(0)[voc_xml(0).index("<bndbox>") : voc_xml(0).index("</object>")],
            "<polygon><x1>11</x1><y1>9</y1><x2>40</x2><y2>9</y2><x3>30</x3><y3>38</y3></polygon>",
            "utf-8",
            "polygon without a box, the box around it used",
        ),
        (
            voc_xml(0)[voc_xml(0).index("<bndbox>") : voc_xml(0).index("</object>")],
            "<robndbox><cx>25</cx><cy>23</cy><w>15</w><h>15</h><angle>-0.785398163</angle>"
            "</robndbox>",
            "utf-8",
            "rotated box, the box around it used",
        ),
    ],
)
def test_what_is_mended(tmp_path: Path, old: str, new: str, encoding: str, kind: str) -> None:
    spec = voc_set(tmp_path)
    change_first(tmp_path, old, new, encoding)
    loaded = load_annotated(spec)
    expected = truth()
    if "robndbox" in new:
        half = 15 / 2**0.5
        expected["p0.png"] = [
            ("cat", tuple(round(v, 3) for v in (25 - half, 23 - half, 25 + half, 23 + half)))
        ]
    assert boxes_of(loaded) == expected
    assert loaded.findings.as_dict()[MENDED] == {kind: 1}


def test_several_boxes_are_several_objects(tmp_path: Path) -> None:
    spec = voc_set(tmp_path)
    other = "<xmin>1</xmin><ymin>1</ymin><xmax>20</xmax><ymax>10</ymax></bndbox>"
    change_first(tmp_path, "</bndbox>", f"</bndbox><bndbox>{other}")
    loaded = load_annotated(spec)
    assert boxes_of(loaded)["p0.png"] == [("cat", BOXES[0]), ("cat", (0, 0, 20, 10))]
    assert loaded.findings.as_dict()[MENDED] == {
        "object with several boxes, one object for each": 1
    }


def test_sizes_for_corners_are_refused(tmp_path: Path) -> None:
    spec = voc_set(tmp_path)
    sizes = [(40, 5, 20, 10), (30, 20, 20, 30), (5, 30, 9, 9), (2, 2, 9, 9)]
    for number, values in enumerate(sizes):
        xml = voc_xml(number, corners=values)
        (tmp_path / "Annotations" / f"p{number}.xml").write_text(xml)
    with pytest.raises(ValueError, match="3 of 4 boxes have xmax below xmin .* width and height"):
        load_annotated(spec)
    for number, values in enumerate([(4, 5, 20, 10), (9, 9, 20, 30)]):  # true of few in the corner
        xml = voc_xml(number, corners=values)
        (tmp_path / "Annotations" / f"p{number}.xml").write_text(xml)
    with pytest.raises(ValueError, match="1 of 4 boxes have xmax below xmin .* width and height"):
        load_annotated(spec)
    for number, (x0, y0, x1, y1) in enumerate(BOXES):  # another order of the corners
        xml = voc_xml(number, corners=(x1, y0 + 1, x0 + 1, y1))
        (tmp_path / "Annotations" / f"p{number}.xml").write_text(xml)
    assert boxes_of(load_annotated(spec)) == truth()


def test_unicodes_normal_forms_of_a_class_are_one(tmp_path: Path) -> None:
    spec = voc_set(tmp_path)
    relabel(tmp_path, ["f\u00fcr", "fu\u0308r", "a  b", "a b"])
    assert load_annotated(spec).data.classes == ["a b", "f\u00fcr"]


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
