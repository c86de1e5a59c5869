"""Which size and orientation boxes are in, by what the annotations state."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from annotated_sets import BOXES, HEIGHT, WIDTH, boxes_of, coco_set, picture, save_turned, truth
from PIL import Image

from d2_transfer.data.findings import MENDED
from d2_transfer.data.load import LoadedData, load_annotated

STORED, SEEN = (WIDTH, HEIGHT), (HEIGHT, WIDTH)
UNDECIDED = "size that does not show whether the EXIF orientation applies, "


def sized(*sizes: tuple[Any, Any]) -> Any:
    """States the sizes of the images; of all with one."""

    def change(content: dict[str, Any]) -> None:
        for number, image in enumerate(content["images"]):
            width, height = sizes[min(number, len(sizes) - 1)]
            image.update(width=width, height=height)

    return change


def mended(loaded: LoadedData) -> dict[str, int]:
    return loaded.findings.as_dict().get(MENDED, {})


def small_boxes(content: dict[str, Any]) -> None:
    for annotation in content["annotations"]:
        annotation.update(bbox=[5, 6, 30, 40], area=1200, segmentation=[])


@pytest.mark.parametrize("orientation", [6, 8, 5, 7])
def test_the_stated_size_says_whether_the_orientation_applies(
    tmp_path: Path, orientation: int
) -> None:
    spec = coco_set(tmp_path / "a", save=save_turned(orientation), suffix=".jpg")
    loaded = load_annotated(spec)
    assert not any(image.turned for image in loaded.data.images)
    assert boxes_of(loaded) == truth(".jpg")
    assert mended(loaded) == {"EXIF orientation that the boxes ignore, not applied": 4}

    def seen(content: dict[str, Any]) -> None:
        sized(SEEN)(content)
        small_boxes(content)

    spec = coco_set(tmp_path / "b", seen, save=save_turned(orientation), suffix=".jpg")
    loaded = load_annotated(spec)
    assert all(image.turned for image in loaded.data.images)
    assert {(image.width, image.height) for image in loaded.data.images} == {SEEN}
    assert mended(loaded) == {}


@pytest.mark.parametrize("size", [(0, 0), (None, None), (0, HEIGHT), ("", ""), (-1, 5), ("x", 3)])
def test_a_missing_size_is_the_images(tmp_path: Path, size: Any) -> None:
    loaded = load_annotated(coco_set(tmp_path, sized(size)))
    assert boxes_of(loaded) == truth()
    assert {(image.width, image.height) for image in loaded.data.images} == {STORED}
    assert mended(loaded) == {"no width or height, the image's used": 4}


@pytest.mark.parametrize("orientation", [2, 3, 4])
@pytest.mark.parametrize("size", [STORED, (0, 0)])
def test_an_orientation_that_the_size_does_not_show_is_applied(
    tmp_path: Path, orientation: int, size: Any
) -> None:
    loaded = load_annotated(coco_set(tmp_path, sized(size), save=save_turned(orientation)))
    assert all(image.turned for image in loaded.data.images)
    assert mended(loaded)[f"{UNDECIDED}applied"] == 4


def save_mixed(image: Image.Image, path: Path, number: int) -> None:
    """Orientation 6 shows in the size, 3 does not."""
    save_turned((3, 6, 6, 1)[number])(image, path, number)


@pytest.mark.parametrize(
    ("sizes", "turned", "kind"),
    [
        (
            (STORED, STORED, STORED, STORED),
            [False, False, False, True],
            "not applied, as in the other images",
        ),
        ((STORED, SEEN, SEEN, STORED), [True] * 4, "applied"),
        ((STORED, STORED, SEEN, STORED), [True, False, True, True], "applied"),
        (
            ((0, 0), STORED, STORED, STORED),
            [False, False, False, True],
            "not applied, as in the other images",
        ),
    ],
)
def test_the_other_images_decide_if_they_agree(
    tmp_path: Path, sizes: Any, turned: list[bool], kind: str
) -> None:
    def change(content: dict[str, Any]) -> None:
        sized(*sizes)(content)
        small_boxes(content)

    loaded = load_annotated(coco_set(tmp_path, change, save=save_mixed, suffix=".jpg"))
    assert [image.turned for image in loaded.data.images] == turned
    assert mended(loaded)[UNDECIDED + kind] == 1


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_without_a_size_the_orientation_is_that_in_which_boxes_fit(
    tmp_path: Path, orientation: int
) -> None:
    """The boxes of two images fit in the stored size only, those of the others in both."""
    spec = coco_set(tmp_path, sized((0, 0)), suffix=".jpg", save=save_turned(orientation))
    loaded = load_annotated(spec)
    assert boxes_of(loaded) == truth(".jpg")
    assert {image.turned for image in loaded.data.images} == {False}
    assert mended(loaded) == {
        "no width or height, the image's used": 4,
        "EXIF orientation not applied, since all boxes fit only so": 2,
        "size that does not show whether the EXIF orientation applies, not applied, as in the"
        " other images": 2,
    }


def test_exchanged_sides_are_the_images_if_all_boxes_fit(tmp_path: Path) -> None:
    loaded = load_annotated(coco_set(tmp_path, sized(SEEN)))
    assert boxes_of(loaded) == truth()
    assert mended(loaded) == {"width and height exchanged, the image's used": 4}

    def high(content: dict[str, Any]) -> None:
        sized(STORED, STORED, STORED, SEEN)(content)
        content["annotations"][3].update(bbox=[10, 20, 30, 55], area=1650, segmentation=[])

    with pytest.raises(ValueError, match="image 4: its size is 60 x 80, but .*p3.png has 80 x 60"):
        load_annotated(coco_set(tmp_path, high))


@pytest.mark.parametrize("size", [(WIDTH + 2, HEIGHT), (WIDTH - 1, HEIGHT + 1), (79.5, 60)])
def test_a_size_off_by_two_pixels_is_the_images(tmp_path: Path, size: Any) -> None:
    loaded = load_annotated(coco_set(tmp_path, sized(size)))
    assert {(image.width, image.height) for image in loaded.data.images} == {STORED}
    assert mended(loaded) == {"size off by 1 or 2 pixels, the image's used": 4}


def test_a_nearly_turned_size_is_turned(tmp_path: Path) -> None:
    def change(content: dict[str, Any]) -> None:
        sized((HEIGHT + 1, WIDTH))(content)
        small_boxes(content)

    loaded = load_annotated(coco_set(tmp_path, change, save=save_turned(6), suffix=".jpg"))
    assert all(image.turned and image.width == HEIGHT for image in loaded.data.images)


@pytest.mark.parametrize("size", [(WIDTH * 2, HEIGHT * 2), (WIDTH + 3, HEIGHT), (40, 30)])
def test_a_resized_copy_is_refused(tmp_path: Path, size: Any) -> None:
    with pytest.raises(
        ValueError,
        match=r"ann.json: image 1: its size is .* but .*p0.png has 80 x "
        r"60 pixels; was it annotated on a resized copy\?",
    ):
        load_annotated(coco_set(tmp_path, sized(size)))


def test_square_images_have_no_orientation_to_show(tmp_path: Path) -> None:
    def save(image: Image.Image, path: Path, number: int) -> None:
        save_turned(6)(picture(number, (80, 80)), path, number)

    loaded = load_annotated(coco_set(tmp_path, sized((80, 80)), save=save, suffix=".jpg"))
    assert all(image.turned for image in loaded.data.images)
    assert mended(loaded) == {f"{UNDECIDED}applied": 4}
    assert boxes_of(loaded)["p1.jpg"] == [("dog", BOXES[1])]
