"""Boxes that are clipped, skipped, or mean something else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from annotated_sets import BOXES, HEIGHT, WIDTH, boxes_of, coco_set, truth, voc_set, voc_xml
from PIL import Image

from d2_transfer.data.findings import MENDED, SKIPPED
from d2_transfer.data.load import load_annotated


def box(number: int, *values: float, bare: bool = True) -> Any:
    """Gives an annotation of a COCO file this box, and without polygons and area."""

    def change(content: dict[str, Any]) -> None:
        annotation = content["annotations"][number]
        annotation["bbox"] = list(values)
        if bare:
            del annotation["segmentation"], annotation["area"]

    return change


def all_boxes(function: Any, *, keep: tuple[str, ...] = ()) -> Any:
    """Changes x, y, width, height of all boxes; of polygons and areas only those named stay."""

    def change(content: dict[str, Any]) -> None:
        for annotation in content["annotations"]:
            annotation["bbox"] = list(function(*annotation["bbox"]))
            for key in ("segmentation", "area"):
                if key not in keep:
                    del annotation[key]

    return change


@pytest.mark.parametrize(
    ("values", "clipped"),
    [
        ((30, 20, 240, 24), (30, 20, WIDTH, 44)),
        ((-20, -9, 50, 40), (0, 0, 30, 31)),
        ((30, 20, 32, 40.5), (30, 20, 62, HEIGHT)),
        ((-10, -10, 500, 500), (0, 0, WIDTH, HEIGHT)),
    ],
)
def test_a_box_beyond_its_image_is_clipped(
    tmp_path: Path, values: tuple[float, ...], clipped: tuple[float, ...]
) -> None:
    loaded = load_annotated(coco_set(tmp_path, box(1, *values)))
    assert boxes_of(loaded) == {**truth(), "p1.png": [("dog", clipped)]}
    assert loaded.findings.as_dict() == {MENDED: {"box beyond its image, clipped": 1}}
    assert "ann.json: annotation 2" in loaded.findings.as_text()


@pytest.mark.parametrize("masks", [False, True])
@pytest.mark.parametrize("area", [240 * 24, 2000, None])
def test_the_area_of_a_clipped_object_is_clipped_with_its_box(
    tmp_path: Path, masks: bool, area: float | None
) -> None:
    """Whether masks are used or not, so that a box metric does not depend on them."""

    def beyond(content: dict[str, Any]) -> None:
        content["annotations"][1].update(bbox=[30, 20, 240, 24], area=area)

    loaded = load_annotated(coco_set(tmp_path, beyond), masks=masks)
    clipped = None if area is None else pytest.approx(area * (WIDTH - 30) / 240)
    assert [image.things[0].area for image in loaded.data.images[:2]] == [900, clipped]


def test_what_rounding_leaves_beyond_an_image_costs_no_area(tmp_path: Path) -> None:
    def beyond(content: dict[str, Any]) -> None:
        content["annotations"][1].update(bbox=[30.1, 20, WIDTH - 30.1 + 1e-13, 24], area=500)

    loaded = load_annotated(coco_set(tmp_path, beyond))
    (thing,) = loaded.data.images[1].things
    assert thing.box[2] == WIDTH and thing.area == 500


def test_rounding_is_no_finding(tmp_path: Path) -> None:
    loaded = load_annotated(coco_set(tmp_path, box(0, -0.004, 0, WIDTH + 0.008, 20)))
    assert loaded.data.images[0].things[0].box == (0, 0, WIDTH, 20)
    assert loaded.findings.counts == {}


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ((30, 20, 0, 24), "box of width or height 0"),
        ((30, 20, 32, 0), "box of width or height 0"),
        ((30, 20, 1e-9, 24), "box of width or height 0"),
        ((WIDTH - 0.001, 20, 5, 24), "box wholly outside its image"),
        ((30, 20, 0, 0), "box of width or height 0"),
        ((30, 20, -5, 24), "box of negative width or height"),
        ((float("nan"), 20, 5, 24), "box that is not finite"),
        ((30, 20, float("inf"), 24), "box that is not finite"),
        ((WIDTH, 20, 5, 24), "box wholly outside its image"),
        ((-50, 20, 40, 24), "box wholly outside its image"),
        ((30, 20, 5), "box that is not four numbers"),
        ((10**400, 20, 5, 5), "box that is not four numbers"),
        ((30, 20, "x", 5), "box that is not four numbers"),
    ],
)
def test_worthless_boxes_are_skipped(tmp_path: Path, values: tuple[float, ...], kind: str) -> None:
    loaded = load_annotated(coco_set(tmp_path, box(1, *values)))
    assert boxes_of(loaded) == {**truth(), "p1.png": []}
    assert loaded.findings.as_dict()[SKIPPED] == {kind: 1}
    assert loaded.findings.places["skipped", kind] == ["ann.json: annotation 2"]


def test_the_first_ten_are_listed(tmp_path: Path) -> None:
    def change(content: dict[str, Any]) -> None:
        content["annotations"] += [
            {"id": n, "image_id": 1, "category_id": 1, "bbox": [3, 3, 0, 4]} for n in range(20, 35)
        ]

    loaded = load_annotated(coco_set(tmp_path, change))
    text = loaded.findings.as_text()
    assert loaded.findings.as_dict()[SKIPPED] == {"box of width or height 0": 15}
    assert "annotation 29, and 5 more" in text and "annotation 30" not in text


@pytest.mark.parametrize("keep", [(), ("segmentation",), ("area",)])
def test_corners_for_sizes_are_refused(tmp_path: Path, keep: tuple[str, ...]) -> None:
    change = all_boxes(lambda x, y, w, h: (x, y, x + w, y + h), keep=keep)
    cause = {
        (): "are they corners x0, y0, x1, y1 instead of x, y, width, height",
        ("segmentation",): "fits its mask only when read as corners x0, y0, x1, y1",
        ("area",): "fits its area only when read as corners x0, y0, x1, y1",
    }[keep]
    with pytest.raises(ValueError, match=cause):
        load_annotated(coco_set(tmp_path, change))


def test_corners_within_the_image_are_refused_by_their_masks(tmp_path: Path) -> None:
    """All boxes are inside their image in both readings."""

    def change(content: dict[str, Any]) -> None:
        for annotation in content["annotations"]:
            annotation.update(bbox=[5, 4, 30, 25], area=25 * 21)
            annotation["segmentation"] = [[5, 4, 30, 4, 30, 25, 5, 25]]

    with pytest.raises(
        ValueError, match=r"annotation 1: its box \(5, 4, 35, 29\) fits its mask on"
    ):
        load_annotated(coco_set(tmp_path, change))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda x, y, w, h: (x + w / 2, y + h / 2, w, h),
            r"annotation 1: its box \(12.5, 11.5, 27.5, 26.5\) and its mask, which spans"
            r" \(5, 4, 20, 19\), contradict each other, as do 4 of 4 \(boxes with the centre",
        ),
        (lambda x, y, w, h: (y, x, h, w), r"x and y exchanged\?"),
        (lambda x, y, w, h: (x, y, w / 2, h / 2), "4 of 4: correct one of them, or remove segm"),
    ],
)
def test_boxes_that_contradict_their_masks_are_refused(
    tmp_path: Path, change: Any, message: str
) -> None:
    """All are inside their images."""

    def halve_and_change(content: dict[str, Any]) -> None:
        for annotation in content["annotations"]:
            annotation["bbox"] = list(change(*(v / 2 for v in annotation["bbox"])))
            annotation["segmentation"] = [[v / 2 for v in annotation["segmentation"][0]]]
            del annotation["area"]

    spec = coco_set(tmp_path, halve_and_change)
    with pytest.raises(ValueError, match=message):
        load_annotated(spec, masks=True)
    if "exchanged" in message or "centre" in message:  # these boxes are wrong in any case
        with pytest.raises(ValueError, match=message):
            load_annotated(spec)
    else:
        assert len(load_annotated(spec).data.images) == 4


def test_relative_masks_beside_boxes_in_pixels_are_refused(tmp_path: Path) -> None:
    def change(content: dict[str, Any]) -> None:
        for annotation in content["annotations"]:
            numbers = annotation["segmentation"][0]
            annotation["segmentation"] = [
                [v / (HEIGHT if i % 2 else WIDTH) for i, v in enumerate(numbers)]
            ]

    spec = coco_set(tmp_path, change)
    with pytest.raises(ValueError, match=r"\(masks in relative numbers\?\)"):
        load_annotated(spec, masks=True)
    assert boxes_of(load_annotated(spec)) == truth()


@pytest.mark.parametrize("good", [True, False])
def test_what_is_outside_of_the_image_is_not_compared(tmp_path: Path, good: bool) -> None:
    outside = [300, 200, 320, 200, 320, 220]

    def change(content: dict[str, Any]) -> None:
        for annotation in content["annotations"]:
            annotation["segmentation"] = [outside, *annotation["segmentation"][: int(good)]]

    assert boxes_of(load_annotated(coco_set(tmp_path, change), masks=good)) == truth()


def test_one_box_may_contradict_its_mask(tmp_path: Path) -> None:
    loaded = load_annotated(coco_set(tmp_path, box(1, 1, 1, 12, 12, bare=False)), masks=True)
    assert boxes_of(loaded) == {**truth(), "p1.png": [("dog", (1, 1, 13, 13))]}


def test_boxes_of_another_size_are_refused(tmp_path: Path) -> None:
    change = all_boxes(lambda x, y, w, h: (4 * x, 4 * y, 2 * w, 2 * h))
    with pytest.raises(
        ValueError,
        match=r"annotation 1: \d of 4 boxes reach beyond their image, "
        r"this one .* in 80 x 60 pixels; are the images of another size",
    ):
        load_annotated(coco_set(tmp_path, change))


def test_boxes_slightly_beyond_are_clipped_however_many(tmp_path: Path) -> None:
    loaded = load_annotated(coco_set(tmp_path, all_boxes(lambda *_: (20, -1, 61, 62))))
    assert {boxes[0][1] for boxes in boxes_of(loaded).values()} == {(20, 0, WIDTH, HEIGHT)}
    assert loaded.findings.as_dict()[MENDED] == {"box beyond its image, clipped": 4}


def test_relative_numbers_are_refused(tmp_path: Path) -> None:
    change = all_boxes(lambda x, y, w, h: (x / WIDTH, y / HEIGHT, w / WIDTH, h / HEIGHT))
    with pytest.raises(
        ValueError,
        match=r"annotation 1: 4 of 4 boxes are within 1 x 1 pixel, so "
        r"they are relative numbers; this format has pixels",
    ):
        load_annotated(coco_set(tmp_path / "coco", change))
    spec = voc_set(tmp_path / "voc")
    for number, (x0, y0, x1, y1) in enumerate(BOXES):
        corners = (x0 / WIDTH, y0 / HEIGHT, x1 / WIDTH, y1 / HEIGHT)
        file = tmp_path / "voc" / "Annotations" / f"p{number}.xml"
        file.write_text(voc_xml(number, corners=corners))
    with pytest.raises(ValueError, match=r"p0.xml: object 1: 4 of 4 boxes are within 1 x 1 pixel"):
        load_annotated(spec)


@pytest.mark.parametrize("wrong", [1, 2])
def test_a_few_relative_boxes_are_skipped(tmp_path: Path, wrong: int) -> None:
    """Two of four are refused: the file may have been joined from others."""

    def change(content: dict[str, Any]) -> None:
        for number in range(wrong):
            x, y, w, h = content["annotations"][number]["bbox"]
            box(number, x / WIDTH, y / HEIGHT, w / WIDTH, h / HEIGHT)(content)

    spec = coco_set(tmp_path, change)
    if wrong == 2:
        with pytest.raises(ValueError, match="2 of 4 boxes are within 1 x 1 pixel"):
            load_annotated(spec)
        return
    loaded = load_annotated(spec)
    assert boxes_of(loaded) == {**truth(), "p0.png": []}
    kind = "box within 1 x 1 pixel, as relative numbers are"
    assert loaded.findings.as_dict()[SKIPPED] == {kind: 1}


@pytest.mark.parametrize("number", [5, 4])
def test_percentages_are_refused(tmp_path: Path, number: int) -> None:
    """Where enough boxes show it; the images have 320 x 300 pixels."""

    def change(content: dict[str, Any]) -> None:
        for image in content["images"]:
            image.update(width=320, height=300)
        for annotation in content["annotations"]:
            del annotation["segmentation"], annotation["area"]
        content["annotations"] *= number
        for n, annotation in enumerate(content["annotations"]):
            content["annotations"][n] = {**annotation, "id": n, "bbox": [n, n, 70, 50 + n]}

    def save(image: Image.Image, path: Path, _: int) -> None:
        image.resize((320, 300)).save(path)

    spec = coco_set(tmp_path, change, save=save)
    if number == 5:
        with pytest.raises(ValueError, match="all 20 boxes are within the first 100 x 100 pixels"):
            load_annotated(spec)
    else:
        assert load_annotated(spec).data.num_things == 16


def test_boxes_of_zeros_are_no_relative_numbers(tmp_path: Path) -> None:
    def zeros(content: dict[str, Any]) -> None:
        for number in (1, 2, 3):
            box(number, 0, 0, 0, 0)(content)

    loaded = load_annotated(coco_set(tmp_path, zeros))
    assert loaded.findings.as_dict()[SKIPPED] == {"box of width or height 0": 3}


def test_strict_refuses_whatever_would_be_mended_or_skipped(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError,
        match=r"mine: 1 x box beyond its image, clipped would be mended, "
        r"first ann.json: annotation 2 \(DATASETS.STRICT is True\)",
    ):
        load_annotated(coco_set(tmp_path, box(1, 30, 20, 240, 24)), name="mine", strict=True)
    with pytest.raises(ValueError, match="1 x box of width or height 0 would be skipped"):
        load_annotated(coco_set(tmp_path, box(1, 30, 20, 0, 24)), strict=True)
    empty = coco_set(tmp_path, lambda content: content["annotations"].pop())
    assert boxes_of(load_annotated(empty, strict=True))["p3.png"] == []
