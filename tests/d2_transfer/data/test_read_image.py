"""Images for a detector: as Detectron2 reads them, and those that it does not read well."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from annotated_sets import picture, save_turned
from deep_images import WRITERS, tiff16
from detectron2.data import detection_utils as utils
from PIL import Image

from cwrgp.images import UnreadableImage
from d2_transfer.data.read_image import read_image

RGB = np.random.default_rng(0).integers(0, 65536, (5, 8, 3)).astype(np.uint16)


PLAIN = [
    *((mode, "png") for mode in ("RGB", "L", "P", "RGBA", "1", "LA")),
    *((mode, "tif") for mode in ("RGB", "L", "P", "RGBA", "1", "LA", "CMYK")),
    *[("CMYK", "jpg"), ("RGB", "jpg"), ("L", "jpg"), ("RGBA", "webp"), ("P", "gif"), ("P", "bmp")],
]


@pytest.mark.parametrize("image_format", ["RGB", "BGR", "L", "YUV-BT.601"])
@pytest.mark.parametrize(
    ("mode", "suffix", "orientation"),
    [(*case, 1) for case in PLAIN]
    # Without TIFF files, which both Pillow and Detectron2 turn.
    + [(*case, 6) for case in PLAIN if case[1] in ("png", "jpg", "webp")],
)
def test_images_are_read_as_by_detectron2(
    tmp_path: Path, mode: str, suffix: str, image_format: str, orientation: int
) -> None:
    path = str(tmp_path / f"image.{suffix}")
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture(1).convert(mode).save(path, exif=exif)
    ours = read_image(path, image_format)
    theirs = utils.read_image(path, image_format)
    assert ours.dtype == theirs.dtype and np.array_equal(ours, theirs)


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_is_applied_or_not(tmp_path: Path, suffix: str, orientation: int) -> None:
    path = tmp_path / f"image.{suffix}"
    plain = tmp_path / f"plain.{suffix}"
    picture(0).save(plain)
    save_turned(orientation)(picture(0), path, 0)
    stored = read_image(str(plain), "RGB")
    assert np.array_equal(read_image(str(path), "RGB", turned=False), stored)
    seen = {  # EXIF 2.3, tag 0x0112: where the first row and column of the file are
        1: stored, 2: stored[:, ::-1], 3: stored[::-1, ::-1], 4: stored[::-1],
        5: stored.transpose(1, 0, 2), 6: np.rot90(stored, -1),
        7: np.rot90(stored, 2).transpose(1, 0, 2), 8: np.rot90(stored),
    }  # fmt: skip
    assert np.array_equal(read_image(str(path), "RGB"), seen[orientation])


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bits_are_scaled_by_257(tmp_path: Path, suffix: str) -> None:
    pixels = np.array([[0, 128, 129, 257], [30000, 65278, 65406, 65535]], np.uint16)
    path = str(tmp_path / f"image.{suffix}")
    Image.fromarray(pixels).save(path)
    expected = np.array([[0, 0, 1, 1], [117, 254, 254, 255]])
    for image_format in ("RGB", "BGR"):
        found = read_image(path, image_format)
        assert found.dtype == np.uint8
        assert np.array_equal(found, np.repeat(expected[..., None], 3, axis=2))


def test_a_range_of_pixels(tmp_path: Path) -> None:
    path = str(tmp_path / "image.png")
    Image.fromarray(np.array([[0, 100, 2100, 4100, 9000]], np.uint16)).save(path)
    found = read_image(path, "RGB", pixel_range=(100, 4100))
    assert found[0, :, 0].tolist() == [0, 0, 128, 255, 255]
    path = str(tmp_path / "image.tif")
    Image.fromarray(np.array([[-1, 0, 0.2, 1, np.nan]], np.float32)).save(path)
    found = read_image(path, "RGB", pixel_range=(0, 1))
    assert found[0, :, 0].tolist() == [0, 0, 51, 255, 0]
    with pytest.raises(ValueError, match=r"image.tif has floating-point .* set INPUT.PIXEL_RANGE"):
        read_image(path, "RGB")


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_colours_of_16_bits(tmp_path: Path, writer: str, orientation: int) -> None:
    path = tmp_path / f"image.{writer[:3]}"
    path.write_bytes(WRITERS[writer](RGB, orientation=orientation))
    stored = np.floor(RGB / 257 + 0.5)
    seen = np.rot90(stored, {1: 0, 3: 2, 6: -1}[orientation])
    assert np.array_equal(read_image(str(path), "RGB"), seen)
    assert np.array_equal(read_image(str(path), "BGR"), seen[..., ::-1])
    assert np.array_equal(read_image(str(path), "RGB", turned=False), stored)
    path.write_bytes(WRITERS[writer](RGB % 4096, orientation=orientation))
    ranged = np.clip(np.rint(((RGB % 4096) - 100.0) * (255 / 2000)), 0, 255)
    found = read_image(str(path), "RGB", turned=False, pixel_range=(100, 2100))
    assert np.array_equal(found, ranged)


def test_cmyk_of_16_bits(tmp_path: Path) -> None:
    """As 8 bits of the same values, which Detectron2 reads."""
    values = np.random.default_rng(0).integers(0, 256, (5, 8, 4)).astype(np.uint8)
    (tmp_path / "16.tif").write_bytes(tiff16(values.astype(np.uint16) * 257, photometric=5))
    Image.frombytes("CMYK", (8, 5), values.tobytes()).save(tmp_path / "8.tif")
    expected = utils.read_image(str(tmp_path / "8.tif"), "BGR")
    assert np.array_equal(read_image(str(tmp_path / "16.tif"), "BGR"), expected)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<html>", "page.jpg: this is an HTML page$"),
        (b"", "page.jpg: the file is empty"),
        (b"version https://git-lfs.github.com/spec/v1", "page.jpg: .*; run git lfs pull$"),
        (None, "page.jpg: no such file$"),
    ],
)
def test_an_unreadable_image_names_its_file(
    tmp_path: Path, content: bytes | None, message: str
) -> None:
    if content is not None:
        (tmp_path / "page.jpg").write_bytes(content)
    with pytest.raises(UnreadableImage, match=message):
        read_image(str(tmp_path / "page.jpg"), "RGB")


def test_a_folder_is_no_image(tmp_path: Path) -> None:
    with pytest.raises(UnreadableImage, match=f"{tmp_path.name}: a folder, not a file$"):
        read_image(str(tmp_path), "RGB")
