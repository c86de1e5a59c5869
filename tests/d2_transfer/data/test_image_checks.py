"""Sets with unreadable images, and with images whose values are not of 8 bits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from annotated_sets import coco_set
from deep_images import WRITERS
from PIL import Image

from d2_transfer.data.load import load_annotated
from d2_transfer.data.spec import CocoSpec


def save_16_bit(factor: int) -> Callable[[Image.Image, Path, int], None]:
    def save(image: Image.Image, path: Path, number: int) -> None:
        grey = np.asarray(image.convert("L")).astype(np.uint16)
        Image.fromarray(grey * factor).save(path)

    return save


def save_float(image: Image.Image, path: Path, number: int) -> None:
    Image.fromarray(np.asarray(image.convert("L")).astype(np.float32)).save(path)


def save_32_bit(image: Image.Image, path: Path, number: int) -> None:
    Image.fromarray(np.asarray(image.convert("L")).astype(np.int32)).save(path)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_pixels_of_16_bits(tmp_path: Path, suffix: str) -> None:
    loaded = load_annotated(coco_set(tmp_path, suffix=suffix, save=save_16_bit(257)))
    assert [file.kind for file in loaded.files.values()] == ["16-bit"] * 4


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_a_12_bit_camera_needs_a_range(tmp_path: Path, suffix: str) -> None:
    spec = coco_set(tmp_path, suffix=suffix, save=save_16_bit(16))
    with pytest.raises(
        ValueError,
        match=r"^.*ann.json: the values of all 4 16-bit images are below 4096 \(the largest is "
        r"\d+\), .*; set INPUT.PIXEL_RANGE to the values .*, such as \[0, 4095\]$",
    ):
        load_annotated(spec)
    loaded = load_annotated(spec, pixel_range=(0, 4095))
    assert {file.kind for file in loaded.files.values()} == {"16-bit"}


@pytest.mark.parametrize("writer", WRITERS)
def test_colours_of_12_bits_need_a_range_too(tmp_path: Path, writer: str) -> None:
    """Pillow gives them as 8 bits, which would be nearly black."""

    def save(factor: int) -> Callable[[Image.Image, Path, int], None]:
        def write(image: Image.Image, path: Path, number: int) -> None:
            values = np.asarray(image.convert("RGB")).astype(np.uint16) * factor
            path.write_bytes(WRITERS[writer](values))

        return write

    suffix = f".{writer[:3]}"
    spec = coco_set(tmp_path / "dark", suffix=suffix, save=save(16))
    with pytest.raises(ValueError, match="of all 4 16-bit images .* set INPUT.PIXEL_RANGE "):
        load_annotated(spec)
    assert len(load_annotated(spec, pixel_range=(0, 4095)).files) == 4
    bright = load_annotated(coco_set(tmp_path / "bright", suffix=suffix, save=save(257)))
    assert len(bright.files) == 4


def test_one_bright_image_shows_the_range(tmp_path: Path) -> None:
    def save(image: Image.Image, path: Path, number: int) -> None:
        save_16_bit(257 if number == 3 else 16)(image, path, number)

    assert len(load_annotated(coco_set(tmp_path, save=save)).data.images) == 4


@pytest.mark.parametrize("save", [save_float, save_32_bit])
def test_float_pixels_need_a_range(tmp_path: Path, save: Callable[..., None]) -> None:
    spec = coco_set(tmp_path, suffix=".tif", save=save)
    with pytest.raises(
        ValueError,
        match=r"4 of 4 images have floating-point or 32-bit values, whose range "
        r"is not known; set INPUT.PIXEL_RANGE .*; the first is .*p0.tif$",
    ):
        load_annotated(spec)
    loaded = load_annotated(spec, pixel_range=(0.0, 1.0))
    assert {file.kind for file in loaded.files.values()} == {"float"}


def break_some(*numbers: int) -> Callable[[Image.Image, Path, int], None]:
    def save(image: Image.Image, path: Path, number: int) -> None:
        image.save(path)
        if number in numbers:
            path.write_bytes(path.read_bytes()[:-60])

    return save


def test_unreadable_images_are_skipped_up_to_a_share(tmp_path: Path) -> None:
    loaded = load_annotated(coco_set(tmp_path, save=break_some(2)))
    assert [image.id for image in loaded.data.images] == [1, 2, 4]
    assert list(loaded.unreadable) == [3] and loaded.unreadable[3].startswith("damaged")
    assert "p2.png: damaged (" in loaded.findings.as_text()
    spec = coco_set(tmp_path, save=break_some(1, 2))
    with pytest.raises(
        ValueError,
        match=r"2 of 4 images cannot be read \(DATASETS.MAX_UNREADABLE_"
        r"SHARE 0.05 allows 1, and not all\); the first is .*p1.png: damaged",
    ):
        load_annotated(spec)
    assert len(load_annotated(spec, max_unreadable_share=0.3).data.images) == 2
    with pytest.raises(ValueError, match="1 of 4 images cannot be read"):
        load_annotated(coco_set(tmp_path, save=break_some(1)), max_unreadable_share=0)
    with pytest.raises(ValueError, match=r"max_unreadable_share 2 is not in 0 to 1"):
        load_annotated(spec, max_unreadable_share=2)


def test_where_images_were_looked_for_is_named_if_none_is_there(tmp_path: Path) -> None:
    spec = coco_set(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    with pytest.raises(ValueError, match=r"none is below .*elsewhere: .* as in coco:ANN.json:IMAG"):
        load_annotated(CocoSpec(spec.json_file, tmp_path / "elsewhere"))


def test_an_image_too_narrow_to_be_resized_is_skipped(tmp_path: Path) -> None:
    """Its shorter side would have no pixel, an error in the middle of training."""

    def save(image: Image.Image, path: Path, number: int) -> None:
        (image.resize((2000, 5)) if number == 1 else image).save(path)

    loaded = load_annotated(coco_set(tmp_path, save=save))
    assert loaded.unreadable == {2: "too narrow (2000 x 5 pixels)"}


def test_not_all_images_may_be_unreadable(tmp_path: Path) -> None:
    spec = coco_set(tmp_path, save=break_some(0, 1, 2, 3))
    with pytest.raises(ValueError, match="4 of 4 images cannot be read"):
        load_annotated(spec, max_unreadable_share=1)
