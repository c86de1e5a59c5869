"""What is usable of masks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from annotated_sets import BOXES, HEIGHT, WIDTH, boxes_of, coco_set, truth, voc_set
from pycocotools import mask as rles

from d2_transfer.data.findings import MENDED, NOTED, SKIPPED
from d2_transfer.data.load import load_annotated
from d2_transfer.data.masks import usable_mask

SQUARE = [5.0, 5, 20, 5, 20, 20, 5, 20]


def rle(number: int, *, compressed: bool) -> dict[str, Any]:
    x0, y0, x1, y1 = BOXES[number]
    pixels = np.zeros((HEIGHT, WIDTH), np.uint8, order="F")
    pixels[y0:y1, x0:x1] = 1
    if compressed:
        found = rles.encode(pixels)
        return {"size": found["size"], "counts": found["counts"].decode()}
    flat = pixels.flatten("F")
    edges = np.flatnonzero(np.diff(flat)) + 1
    return {"size": [HEIGHT, WIDTH], "counts": np.diff([0, *edges, flat.size]).tolist()}


def masks(*values: Any) -> Any:
    """Gives the annotations of a COCO file these masks; ... keeps one, None removes it."""

    def change(content: dict[str, Any]) -> None:
        for annotation, value in zip(content["annotations"], values, strict=False):
            if value is None:
                del annotation["segmentation"]
            elif value is not ...:
                annotation["segmentation"] = value

    return change


@pytest.mark.parametrize(
    "mask",
    [
        [SQUARE],
        SQUARE,
        [[str(v) for v in SQUARE]],
        [[5, 5], [20, 5], [20, 20], [5, 20]],
        [[[5, 5], [20, 5], [20, 20], [5, 20]]],
        [{"x": x, "y": y} for x, y in ((5, 5), (20, 5), (20, 20), (5, 20))],
        [[{"x": x, "y": y} for x, y in ((5, 5), (20, 5), (20, 20), (5, 20))]],
        [[SQUARE]],
    ],
)
def test_polygons_as_tools_write_them(mask: Any) -> None:
    assert usable_mask(mask, HEIGHT, WIDTH) == ([SQUARE], [])


@pytest.mark.parametrize("compressed", [True, False])
def test_rles_become_compressed(compressed: bool) -> None:
    found, problems = usable_mask(rle(0, compressed=compressed), HEIGHT, WIDTH)
    assert found == rle(0, compressed=True) and problems == []
    assert usable_mask([rle(0, compressed=compressed)], HEIGHT, WIDTH) == (found, [])


def test_rles_in_a_list_are_united() -> None:
    found, problems = usable_mask(
        [rle(0, compressed=True), {"counts": "x"}, rle(1, compressed=False)], HEIGHT, WIDTH
    )
    assert isinstance(found, dict) and problems == ["RLE of another size than its image"]
    expected = np.zeros((HEIGHT, WIDTH), bool)
    for x0, y0, x1, y1 in BOXES[:2]:
        expected[y0:y1, x0:x1] = True
    np.testing.assert_array_equal(rles.decode(found), expected)


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("off", [(1, -2), (-1, 2)])
def test_an_rle_of_an_image_that_was_cropped_is_fitted(
    compressed: bool, off: tuple[int, int]
) -> None:
    height, width = HEIGHT + off[0], WIDTH + off[1]
    found, problems = usable_mask(rle(0, compressed=compressed), height, width)
    x0, y0, x1, y1 = BOXES[0]
    expected = np.zeros((height, width), bool)
    expected[y0:y1, x0:x1] = True
    assert isinstance(found, dict) and problems == [] and found["size"] == [height, width]
    np.testing.assert_array_equal(rles.decode(found), expected)


def test_compressed_counts_are_summed() -> None:
    """Counts that end too early leave pixels that nobody has set."""
    rng = np.random.default_rng(0)
    total = HEIGHT * WIDTH
    for _ in range(20):
        runs = rng.integers(0, 90, 60).tolist()  # with empty ones, which pycocotools never writes
        for last, expected in ((total - sum(runs), []), (3, ["RLE whose counts do not cover its"])):
            size = [HEIGHT, WIDTH]
            found = rles.frPyObjects({"size": size, "counts": [*runs, last]}, *size)
            mask = {"size": size, "counts": found["counts"].decode()}
            _, problems = usable_mask(mask, HEIGHT, WIDTH)
            assert [problem.removesuffix(" image") for problem in problems] == expected


@pytest.mark.parametrize(
    ("part", "problem"),
    [
        ([1, 2, 3, 4], "polygon of fewer than three points"),
        ([1, 2, 1, 2, 1, 2], "polygon of fewer than three points"),
        ([1, 2, 3], "polygon with an odd number of coordinates"),
        ([1, 2, 3, 4, 5, float("nan")], "polygon that is not finite numbers"),
        ([1, 2, 3, 4, 5, None], "polygon that is not finite numbers"),
        ([90, 5, 99, 5, 99, 20], "polygon outside its image"),
        ([5, 5, 20, 5, 20, 1e12], "polygon that reaches far beyond its image"),
        ([-1e300, 5, 20, 5, 20, 20], "polygon that reaches far beyond its image"),
        ([5, 5, 20, 5, 30, 5], "polygon without area"),
        ([], "polygon of fewer than three points"),
        ([5, 5, 10, 10, 20, 20], "polygon without pixels"),
        ([5.1, 5.1, 5.2, 5.1, 5.2, 5.2], "polygon without pixels"),
        ([WIDTH - 0.1, 5, WIDTH + 30, 5, WIDTH + 30, 20], "polygon without pixels"),
    ],
)
def test_what_is_good_of_an_instance_stays(tmp_path: Path, part: Any, problem: str) -> None:
    assert usable_mask([SQUARE, part], HEIGHT, WIDTH) == ([SQUARE], [problem])
    loaded = load_annotated(coco_set(tmp_path, masks([SQUARE, part])), masks=True)
    assert loaded.data.images[0].things[0].mask == [SQUARE]
    assert loaded.findings.as_dict() == {SKIPPED: {problem: 1}}


@pytest.mark.parametrize(
    ("mask", "why"),
    [
        (None, ""),
        ([], ""),
        ({}, ""),
        ([[1, 2, 3, 4]], " (polygon of fewer than three points)"),
        ({"size": [HEIGHT, WIDTH], "counts": "garbage!!"}, " (damaged RLE)"),
        ({"size": [HEIGHT, WIDTH]}, " (RLE without counts)"),
        ({"size": [HEIGHT, WIDTH], "counts": [3, 4]}, " (RLE whose counts do not cover its image)"),
        ({"size": [HEIGHT, WIDTH], "counts": ""}, " (RLE whose counts do not cover its image)"),
        ({"size": [WIDTH, HEIGHT], "counts": [4800]}, " (RLE of another size than its image)"),
        ({"size": [HEIGHT, WIDTH], "counts": [4800]}, " (RLE without pixels)"),
        ("mask.png", " (mask that is neither polygons nor an RLE)"),
    ],
)
def test_the_box_of_an_object_without_a_mask_stays(tmp_path: Path, mask: Any, why: str) -> None:
    spec = coco_set(tmp_path, masks(..., mask))
    loaded = load_annotated(spec, masks=True)
    assert boxes_of(loaded) == truth()
    assert loaded.data.images[1].things[0].mask is None
    assert loaded.findings.as_dict() == {
        MENDED: {f"object without a mask{why}, its box used alone": 1}
    }
    loaded = load_annotated(spec, masks=True, maskless="skip")
    assert boxes_of(loaded) == {**truth(), "p1.png": []}
    assert loaded.findings.as_dict()[SKIPPED] == {f"object without a mask{why}": 1}
    assert load_annotated(spec).findings.counts == {}  # boxes need no mask


def test_a_data_set_without_masks_is_refused(tmp_path: Path) -> None:
    message = "no object has a usable mask; set MODEL.MASK_ON False to use the boxes"
    with pytest.raises(ValueError, match=message):
        load_annotated(coco_set(tmp_path / "coco", masks([], [], None, [[1, 2]])), masks=True)
    with pytest.raises(ValueError, match=message):
        load_annotated(voc_set(tmp_path / "voc"), masks=True)
    with pytest.raises(ValueError, match="maskless 'keep' is unknown; choose one of box, skip"):
        load_annotated(voc_set(tmp_path / "other"), masks=True, maskless="keep")


@pytest.mark.parametrize("compressed", [True, False])
def test_rles_choose_the_format_bitmask(tmp_path: Path, compressed: bool) -> None:
    loaded = load_annotated(coco_set(tmp_path, masks(rle(0, compressed=compressed))), masks=True)
    assert loaded.mask_format == "bitmask"
    assert "masks with RLE, read as INPUT.MASK_FORMAT bitmask" in loaded.findings.as_text()
    assert load_annotated(coco_set(tmp_path), masks=True).mask_format == "polygon"


def test_rles_of_crowds_choose_no_format(tmp_path: Path) -> None:
    def change(content: dict[str, Any]) -> None:
        content["annotations"][0].update(iscrowd=1, segmentation=rle(0, compressed=True))

    loaded = load_annotated(coco_set(tmp_path, change), masks=True)
    assert loaded.mask_format == "polygon"
    noted = {"crowd (iscrowd 1), not trained on and not scored": 1}
    assert loaded.findings.as_dict() == {NOTED: noted}
