"""What is found in the headers and ends of image files."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from annotated_sets import coco_set, picture, save_plainly, save_turned
from PIL import Image

from d2_transfer.data import image_files
from d2_transfer.data.image_files import (
    FLOAT,
    SIXTEEN_BIT,
    ImageFile,
    inspect_image,
    inspect_images,
)
from d2_transfer.data.load import load_annotated

FORMATS = (".jpg", ".png", ".webp", ".bmp", ".tif", ".ppm", ".gif")


@pytest.mark.parametrize("suffix", FORMATS)
def test_sound_images(tmp_path: Path, suffix: str) -> None:
    picture(0).save(tmp_path / f"a{suffix}")
    assert inspect_image(tmp_path / f"a{suffix}") == ImageFile(80, 60)


@pytest.mark.parametrize("suffix", FORMATS)
def test_truncated_images(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    picture(0).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    assert inspect_image(path).problem.startswith("damaged (")


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_bytes_after_the_end_do_no_harm(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    picture(0).save(path)
    path.write_bytes(path.read_bytes() + b"\0" * 100)
    assert inspect_image(path) == ImageFile(80, 60)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "empty file"),
        (b"<!DOCTYPE html><html>", "an HTML page, not an image"),
        (b"\n\n<HTML><body>", "an HTML page, not an image"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "a Git LFS pointer, not an image"),
        (b'{"error": 404}', "text, not an image"),
        (b"nonsense", "not an image of a known format"),
        (b"\xff\xd8\xff", "not an image of a known format"),
    ],
)
def test_files_that_are_no_images(tmp_path: Path, content: bytes, problem: str) -> None:
    (tmp_path / "a.jpg").write_bytes(content)
    assert inspect_image(tmp_path / "a.jpg").problem.startswith(problem)


def test_missing_files_and_folders(tmp_path: Path) -> None:
    assert inspect_image(tmp_path / "a.jpg").problem == "no such file"
    assert inspect_image(tmp_path).problem == "a folder, not a file"


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientations(tmp_path: Path, suffix: str, orientation: int) -> None:
    path = tmp_path / f"a{suffix}"
    save_turned(orientation)(picture(0), path, 0)
    found = inspect_image(path)
    assert (found.size, found.orientation) == ((80, 60), orientation)
    assert found.size_as_seen == ((60, 80) if orientation >= 5 else (80, 60))


def test_an_unknown_or_damaged_orientation_is_none(tmp_path: Path) -> None:
    save_turned(9)(picture(0), tmp_path / "a.jpg", 0)
    exif = b"Exif\0\0MM\0*" + struct.pack(">IH", 8, 9) + b"\xff" * 7
    picture(0).save(tmp_path / "b.jpg", exif=exif)
    assert inspect_image(tmp_path / "a.jpg").orientation == 1
    assert inspect_image(tmp_path / "b.jpg") == ImageFile(80, 60)


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
    save_16_bit(257)(picture(0), tmp_path / f"a{suffix}", 0)
    found = inspect_image(tmp_path / f"a{suffix}")
    expected = 257 * int(np.asarray(picture(0).convert("L")).max())
    assert (found.kind, found.max_value) == (SIXTEEN_BIT, expected)
    assert len(load_annotated(coco_set(tmp_path, suffix=suffix, save=save_16_bit(257))).files) == 4


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_a_12_bit_camera_needs_a_range(tmp_path: Path, suffix: str) -> None:
    spec = coco_set(tmp_path, suffix=suffix, save=save_16_bit(16))
    with pytest.raises(
        ValueError,
        match=r"p0\..*no 16-bit image has a value above \d+, so .*; set "
        r"INPUT.PIXEL_RANGE to the values of black and white, such as 0 4095",
    ):
        load_annotated(spec)
    loaded = load_annotated(spec, pixel_range=(0, 4095))
    assert {file.kind for file in loaded.files.values()} == {SIXTEEN_BIT}


def test_one_bright_image_shows_the_range(tmp_path: Path) -> None:
    def save(image: Image.Image, path: Path, number: int) -> None:
        save_16_bit(257 if number == 3 else 16)(image, path, number)

    assert len(load_annotated(coco_set(tmp_path, save=save)).data.images) == 4


@pytest.mark.parametrize("save", [save_float, save_32_bit])
def test_float_pixels_need_a_range(tmp_path: Path, save: Callable[..., None]) -> None:
    spec = coco_set(tmp_path, suffix=".tif", save=save)
    with pytest.raises(
        ValueError,
        match=r"p0.tif has floating-point or 32-bit pixels, whose range "
        r"is not known: set INPUT.PIXEL_RANGE",
    ):
        load_annotated(spec)
    loaded = load_annotated(spec, pixel_range=(0.0, 1.0))
    assert {file.kind for file in loaded.files.values()} == {FLOAT}


def test_results_are_kept_until_a_file_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CWRGP_CACHE", str(tmp_path / "cache"))
    files = [tmp_path / f"p{n}.png" for n in range(4)]
    for number, file in enumerate(files):
        save_plainly(picture(number), file, number)
    opened: list[Path] = []

    def count(file: Path) -> ImageFile:
        opened.append(file)
        return inspect_image(file)

    monkeypatch.setattr(image_files, "inspect_image", count)
    first = inspect_images(files)
    assert len(opened) == 4
    assert inspect_images(files) == first and len(opened) == 4
    picture(0, (90, 70)).save(files[2])
    os.utime(files[2], ns=(1, 1))
    assert inspect_images(files)[files[2]] == ImageFile(90, 70)
    assert opened[4:] == [files[2]]
    (cache,) = (tmp_path / "cache" / "images").iterdir()
    for damage in (b"", b"[]", b'{"version": 1, "files": {"p0.png": [1]}}', b'{"version": 0}'):
        cache.write_bytes(damage)
        assert inspect_images(files)[files[0]] == first[files[0]]
    assert len(json.loads(cache.read_bytes())["files"]) == 4


def test_missing_images_are_not_kept(tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    assert inspect_images([file])[file].problem == "no such file"
    picture(0).save(file)
    assert inspect_images([file])[file] == ImageFile(80, 60)


def test_a_cache_that_cannot_be_written_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "cache").write_text("a file")
    monkeypatch.setenv("CWRGP_CACHE", str(tmp_path / "cache"))
    picture(0).save(tmp_path / "a.png")
    assert inspect_images([tmp_path / "a.png"])[tmp_path / "a.png"] == ImageFile(80, 60)
    assert "what was found about the images is not kept" in caplog.text


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


def test_not_all_images_may_be_unreadable(tmp_path: Path) -> None:
    spec = coco_set(tmp_path, save=break_some(0, 1, 2, 3))
    with pytest.raises(ValueError, match="4 of 4 images cannot be read"):
        load_annotated(spec, max_unreadable_share=1)
