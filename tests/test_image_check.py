"""What is found about image files before they are used."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from deep_images import DAMAGED_EXIF, WRITERS
from images import encode
from photographs import jpeg, photograph
from PIL import Image
from repository import REPOSITORY

from cwrgp.file_io.cache import cache_dir
from cwrgp.image_check import ImageFile, inspect_image, inspect_images, unknown_range
from cwrgp.images import decode_rgb, reason_of


@pytest.fixture(autouse=True)
def empty_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("CWRGP_CACHE", str(tmp_path_factory.mktemp("cache")))


def gray16(high: int, shape=(20, 30)) -> Image.Image:
    values = np.linspace(0, high, shape[0] * shape[1]).round().astype(np.uint16)
    return Image.fromarray(values.reshape(shape))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "WEBP", "PPM", "TIFF", "GIF"])
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


def test_damaged_exif_is_ignored():
    assert inspect_image(encode(photograph(31, 20), "JPEG", exif=DAMAGED_EXIF)) == ImageFile(31, 20)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_and_their_largest_value(kind):
    found = inspect_image(encode(gray16(4095), kind))
    assert found == ImageFile(30, 20, kind="16-bit", max_value=4095)


@pytest.mark.parametrize("writer", WRITERS)
def test_sixteen_bits_in_several_channels(writer):
    """Pillow gives such images as 8 bits. Alpha does not count."""
    values = np.arange(200, 200 + 5 * 7 * 3, dtype=np.uint16).reshape(5, 7, 3)
    found = inspect_image(WRITERS[writer](values))
    assert found == ImageFile(7, 5, kind="16-bit", max_value=304)


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_floating_point_and_32_bit_integers(dtype):
    image = Image.fromarray(np.arange(600).reshape(20, 30).astype(dtype))
    assert inspect_image(encode(image, "TIFF")) == ImageFile(30, 20, kind="float")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "WEBP", "PPM", "TIFF", "GIF"])
def test_a_truncated_file_is_damaged(kind):
    content = encode(photograph(200, 150), kind)
    assert reason_of(inspect_image(content[: len(content) * 2 // 3]).problem) in (
        "damaged",
        "unknown format",
    )


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_bytes_after_the_end_are_no_problem(kind):
    assert inspect_image(encode(photograph(64, 48), kind) + b"\0" * 100) == ImageFile(64, 48)


def test_a_good_end_after_damage_is_believed():
    """The price of not decoding every image: such a file is found when it is used."""
    content = jpeg(photograph(200, 150))
    assert inspect_image(content[: len(content) // 2] + b"\xff\xd9").problem == ""
    content = encode(photograph(200, 150), "PNG")
    half = len(content) // 2
    assert inspect_image(content[:half] + b"damage" + content[half + 6 :]).problem == ""


def test_exif_after_the_pixels_of_a_png_file_counts():
    """As it does where the image is decoded."""
    data = b"MM\0*" + struct.pack(">IHHHIHHI", 8, 1, 0x0112, 3, 1, 6, 0, 0)
    chunk = struct.pack(">I", len(data)) + b"eXIf" + data
    chunk += struct.pack(">I", zlib.crc32(chunk[4:]))
    plain = encode(photograph(31, 20), "PNG")
    content = plain[:-12] + chunk + plain[-12:]
    assert inspect_image(content) == ImageFile(31, 20, orientation=6)
    assert decode_rgb(content, "photo").size == (20, 31)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "damaged (the file is empty (0 bytes))"),
        (b"<!DOCTYPE html><html></html>", "unknown format (this is an HTML page)"),
        (b"\n\n<HTML><body>", "unknown format (this is an HTML page)"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid",
            "unknown format (this is a Git LFS pointer, not the image; run git lfs pull)",
        ),
        (b' {"error": 404}', "unknown format (this is text, such as a server's message)"),
        (b"\xef\xbb\xbf<?xml ?>", "unknown format (this is text, such as a server's message)"),
        (b"nonsense", "unknown format (no format that Pillow knows)"),
        (b"\xff\xd8\xff", "unknown format (no format that Pillow knows)"),
    ],
)
def test_files_that_are_no_images(tmp_path, content, problem):
    (tmp_path / "a.jpg").write_bytes(content)
    assert inspect_image(tmp_path / "a.jpg").problem == problem


def test_files_that_cannot_be_opened(tmp_path, monkeypatch):
    assert inspect_image(tmp_path / "a.png").problem == "cannot be opened (no such file)"
    assert inspect_image(tmp_path).problem == "cannot be opened (a folder, not a file)"

    def refuse(*args):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)  # root may read everything
    problem = inspect_image(tmp_path / "a.png").problem
    assert problem == "cannot be opened (no permission to read it)"


def test_too_many_pixels(monkeypatch, recwarn):
    content = jpeg(photograph(64, 48))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    assert reason_of(inspect_image(content).problem) == "too many pixels"


def test_many_pixels_are_no_problem_and_give_no_warning(tmp_path, monkeypatch, recwarn):
    photograph(40, 40).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)  # an error from twice as many
    assert inspect_images([tmp_path / "a.png"]) == {tmp_path / "a.png": ImageFile(40, 40)}
    assert not recwarn.list


def test_what_was_found_is_kept_until_the_file_changes(tmp_path, monkeypatch):
    files = [tmp_path / f"{name}.png" for name in "abcd"]
    for side, file in enumerate(files[:2], start=20):
        photograph(side, 16).save(file)
    files[3].write_bytes(b"damaged")
    first = inspect_images(files)
    assert [first[file].width for file in files] == [20, 21, 0, 0]
    opened = []
    original = Path.open

    def recorded(self, *args, **kwargs):
        opened.append(self.name)
        return original(self, *args, **kwargs)

    monkeypatch.setattr(Path, "open", recorded)
    assert inspect_images(files) == first
    # Nothing is kept of those with a problem: its cause may be gone.
    assert sorted(name for name in opened if name.endswith(".png")) == ["c.png", "d.png"]
    photograph(33, 16).save(files[0])
    os.utime(files[0], ns=(1, 1))
    assert inspect_images(files)[files[0]].width == 33


def test_a_problem_that_is_gone_is_forgotten_though_the_file_is_the_same(tmp_path, monkeypatch):
    file = tmp_path / "a.png"
    photograph(40, 40).save(file)
    with monkeypatch.context() as patch:
        patch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
        assert reason_of(inspect_images([file])[file].problem) == "too many pixels"
    assert inspect_images([file])[file] == ImageFile(40, 40)


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


def test_the_check_needs_no_torch():
    code = "import sys, cwrgp.image_check, cwrgp.image_prints; print('torch' in sys.modules)"
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert result.stdout == "False\n"


@pytest.mark.parametrize(
    ("largest", "suggested"), [(0, 1), (1, 1), (255, 255), (256, 511), (4095, 4095)]
)
def test_a_set_of_small_values_has_no_known_range(largest, suggested):
    text = unknown_range("THE.KEY", images=5, floating=[], sixteen=2, largest=largest)
    assert text == (
        f"the values of all 2 16-bit images are below 4096 (the largest is {largest}), so they "
        "would be nearly black; set THE.KEY to the values that become black and white, such as "
        f"[0, {suggested}]"
    )


def test_which_sets_have_a_known_range():
    assert unknown_range("KEY", images=5, floating=[], sixteen=1, largest=4096) == ""
    assert unknown_range("KEY", images=5, floating=[], sixteen=0, largest=0) == ""
    text = unknown_range("KEY", images=5, floating=["b", "d"], sixteen=1, largest=9)
    assert text.startswith("2 of 5 images have floating-point ") and text.endswith("first is b")
    assert "set KEY to the values [low, high]" in text
