"""What is found about image files before they are used."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from photographs import jpeg, photograph
from PIL import Image
from repository import REPOSITORY

from cwrgp.file_io.cache import cache_dir
from cwrgp.image_check import (
    ImageFile,
    content_digest,
    difference_hash,
    fingerprints,
    inspect_image,
    inspect_images,
    repeated_images,
)
from cwrgp.images import reason_of


@pytest.fixture(autouse=True)
def empty_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("CWRGP_CACHE", str(tmp_path_factory.mktemp("cache")))


def encode(image: Image.Image, kind: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def gray16(high: int, shape=(20, 30)) -> Image.Image:
    values = np.linspace(0, high, shape[0] * shape[1]).round().astype(np.uint16)
    return Image.fromarray(values.reshape(shape))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "WEBP", "PPM", "TIFF"])
def test_a_readable_file(kind):
    assert inspect_image(encode(photograph(31, 20), kind)) == ImageFile(31, 20)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_size_is_the_stored_one_and_the_orientation_is_given(kind, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    found = inspect_image(encode(photograph(31, 20), kind, exif=exif))
    assert found == ImageFile(31, 20, orientation)
    assert found.size == (31, 20)
    assert found.size_as_seen == ((20, 31) if orientation >= 5 else (31, 20))


@pytest.mark.parametrize("orientation", [0, 9])
def test_an_orientation_that_does_not_exist_is_ignored(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert inspect_image(encode(photograph(31, 20), "JPEG", exif=exif)).orientation == 1


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_and_their_largest_value(kind):
    found = inspect_image(encode(gray16(4095), kind))
    assert found == ImageFile(30, 20, kind="16-bit", max_value=4095)


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_floating_point_and_32_bit_integers(dtype):
    image = Image.fromarray(np.arange(600).reshape(20, 30).astype(dtype))
    assert inspect_image(encode(image, "TIFF")) == ImageFile(30, 20, kind="float")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "WEBP", "PPM", "TIFF"])
def test_a_truncated_file_is_damaged(kind):
    content = encode(photograph(200, 150), kind)
    assert reason_of(inspect_image(content[: len(content) * 2 // 3]).problem) in (
        "damaged",
        "unknown format",
    )


def test_bytes_after_the_end_of_a_jpeg_file_are_no_problem():
    assert inspect_image(jpeg(photograph(64, 48)) + b"\0" * 100) == ImageFile(64, 48)


def test_a_good_end_after_damage_is_believed():
    """The price of not decoding every image: such a file is found when it is used."""
    content = jpeg(photograph(200, 150))
    assert inspect_image(content[: len(content) // 2] + b"\xff\xd9").problem == ""


def test_the_reasons(tmp_path, monkeypatch):
    assert inspect_image(b"").problem == "damaged (the file is empty (0 bytes))"
    assert inspect_image(b"<!DOCTYPE html><html></html>").problem == (
        "unknown format (this is an HTML page)"
    )
    assert inspect_image(b"text").problem == "unknown format (no format that Pillow knows)"
    missing = inspect_image(tmp_path / "missing.png").problem
    assert missing == "cannot be opened (No such file or directory)"
    content = jpeg(photograph(64, 48))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    assert reason_of(inspect_image(content).problem) == "too many pixels"


def test_what_was_found_is_kept_until_the_file_changes(tmp_path, monkeypatch):
    files = [tmp_path / f"{name}.png" for name in "abc"]
    for side, file in enumerate(files[:2], start=20):
        photograph(side, 16).save(file)
    first = inspect_images(files)
    assert [first[file].width for file in files] == [20, 21, 0]
    opened = []
    original = Path.open

    def recorded(self, *args, **kwargs):
        opened.append(self.name)
        return original(self, *args, **kwargs)

    monkeypatch.setattr(Path, "open", recorded)
    assert inspect_images(files) == first
    assert [name for name in opened if name.endswith(".png")] == [
        "c.png"
    ]  # it is not there, so nothing is kept of it
    photograph(33, 16).save(files[0])
    os.utime(files[0], ns=(1, 1))
    assert inspect_images(files)[files[0]].width == 33


def test_a_damaged_or_older_cache_is_ignored(tmp_path):
    file = tmp_path / "a.png"
    photograph(20, 16).save(file)
    inspect_images([file])
    (kept,) = (cache_dir() / "images").iterdir()
    content = json.loads(kept.read_text())
    for text in ("", "[]", '{"version": 1}', json.dumps(content | {"version": 0})):
        kept.write_text(text)
        assert inspect_images([file]) == {file: ImageFile(20, 16)}
    assert json.loads(kept.read_text()) == content


def test_a_cache_that_cannot_be_written_costs_time_only(tmp_path, monkeypatch, caplog):
    (tmp_path / "cache").write_text("a file")
    monkeypatch.setenv("CWRGP_CACHE", str(tmp_path / "cache"))
    photograph(20, 16).save(tmp_path / "a.png")
    assert inspect_images([tmp_path / "a.png"]) == {tmp_path / "a.png": ImageFile(20, 16)}
    assert "what was found about the images is not kept: " in caplog.text


def hash_by_loops(image: Image.Image) -> int:
    gray = np.asarray(image.convert("L")).astype(float)
    height, width = gray.shape
    assert height % 8 == width % 9 == 0
    value = 0
    for y in range(8):
        row = gray[y * height // 8 : (y + 1) * height // 8]
        parts = [row[:, x * width // 9 : (x + 1) * width // 9].mean().round() for x in range(9)]
        for x in range(8):
            value = 2 * value + int(parts[x + 1] > parts[x])
    return value


def test_the_difference_hash_is_that_of_its_definition():
    image = photograph(90, 64).convert("L")
    assert bin(difference_hash(encode(image, "PNG")) ^ hash_by_loops(image)).count("1") <= 1


def test_equal_and_nearly_equal_images_are_found(tmp_path):
    photo = photograph(400, 300)
    contents = {
        "a.png": encode(photo, "PNG"),
        "b.jpg": jpeg(photo, quality=60),
        "c.png": encode(photo, "PNG"),
        "d.png": encode(photograph(400, 300, seed=1), "PNG"),
        "e.png": encode(photo.resize((200, 150)), "PNG"),
        "f.png": b"damaged",
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    found = fingerprints([tmp_path / name for name in contents])
    assert found.pop(tmp_path / "f.png") is None
    assert found[tmp_path / "a.png"][0] == content_digest(contents["a.png"])
    prints = [value for value in found.values() if value is not None]
    equal, similar = repeated_images(prints)
    assert equal.tolist() == [False, False, True, False, False]
    assert similar.tolist() == [False, True, False, False, True]


def test_repeated_images_count_bits():
    prints = [("a", 0), ("b", 0b11), ("c", 0b111), ("d", 2**64 - 1), ("d", 2**63)]
    equal, similar = repeated_images(prints)
    assert equal.tolist() == [False, False, False, False, True]
    # c differs from b in one bit, and the last from a; but it repeats d.
    assert similar.tolist() == [False, True, True, False, False]
    many = [(str(i), int(value)) for i, value in enumerate(np.arange(2500) << 20)]
    many[2400] = ("x", many[3][1])
    assert repeated_images(many, distance=0)[1].nonzero()[0].tolist() == [2400]


def test_the_check_needs_no_torch():
    code = "import sys, cwrgp.image_check; print('torch' in sys.modules)"
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert result.stdout == "False\n"
