"""Decoding of images with more than 8 bits, and the reasons of unreadable ones."""

from __future__ import annotations

import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from photographs import jpeg, photograph
from PIL import Image

from cwrgp.images import UnreadableImage, decode_rgb, is_hidden, to_8_bits

RNG = np.random.default_rng(0)
GRAY = RNG.integers(0, 65536, (7, 11)).astype(np.uint16)
BGR = RNG.integers(0, 65536, (7, 11, 3)).astype(np.uint16)
BGRA = RNG.integers(0, 65536, (7, 11, 4)).astype(np.uint16)
RAW = [cv2.IMWRITE_TIFF_COMPRESSION, 1]


def encode(values: np.ndarray, suffix: str, options: list[int]) -> bytes:
    """A file that OpenCV writes, whose channels are in the order B, G, R."""
    return cv2.imencode(suffix, values, options)[1].tobytes()


def rounded(values: np.ndarray) -> np.ndarray:
    return np.floor(values.astype(float) / 257 + 0.5)


@pytest.mark.parametrize(
    ("values", "suffix", "options"),
    [(values, suffix, options) for values in (GRAY, BGR, BGRA)
     for suffix, options in ((".png", []), (".tiff", []), (".tiff", RAW))],
)  # fmt: skip
def test_sixteen_bits_are_divided_by_257(values, suffix, options):
    decoded = np.asarray(decode_rgb(encode(values, suffix, options), "photo"))
    expected = values[..., None].repeat(3, 2) if values.ndim == 2 else values[..., 2::-1]
    assert (decoded == rounded(expected)).all()


def test_gray_with_alpha_has_sixteen_bits_too():
    def chunk(kind: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    rows = np.stack([GRAY, GRAY[::-1]], axis=-1).astype(">u2")
    data = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    header = struct.pack(">IIBBBBB", 11, 7, 16, 4, 0, 0, 0)
    content = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data)
    decoded = np.asarray(decode_rgb(content + chunk(b"IEND", b""), "photo"))
    assert (decoded == rounded(GRAY)[..., None]).all()


def test_the_ends_of_the_range_are_black_and_white():
    values = np.array([0, 128, 129, 257, 65406, 65407, 65535], dtype=np.uint16)
    assert to_8_bits(values, None).tolist() == [0, 0, 1, 1, 254, 255, 255]


@pytest.mark.parametrize("suffix", ["PNG", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_of_exif_is_applied_to_sixteen_bits(suffix, orientation):
    def encoded(values: np.ndarray) -> bytes:
        exif, file = Image.Exif(), io.BytesIO()
        exif[0x0112] = orientation
        Image.fromarray(values).save(file, suffix, exif=exif)
        return file.getvalue()

    found = np.asarray(decode_rgb(encoded(GRAY), "photo"))
    expected = np.asarray(decode_rgb(encoded(rounded(GRAY).astype(np.uint8)), "photo"))
    assert found.shape == ((11, 7, 3) if orientation >= 5 else (7, 11, 3))
    assert (found == expected).all()


def test_a_range_maps_linearly_and_clips():
    values = np.array([[-1.0, 0.0, 0.5, 1.0, 2.0, np.nan, np.inf, -np.inf]], dtype=np.float32)
    content = encode(values, ".tiff", [])
    found = np.asarray(decode_rgb(content, "photo", (0, 1)))[0, :, 0]
    assert found.tolist() == [0, 0, 128, 255, 255, 0, 255, 0]
    found = np.asarray(decode_rgb(content, "photo", (-1, 2)))[0, :5, 0]
    assert found.tolist() == [0, 85, 128, 170, 255]


def test_a_range_holds_for_sixteen_bits_but_not_for_eight():
    values = np.array([[0, 100, 2000, 4095, 65535]], dtype=np.uint16)
    found = np.asarray(decode_rgb(encode(values, ".png", []), "photo", (0, 4095)))[0, :, 0]
    assert found.tolist() == [0, 6, 125, 255, 255]
    content = jpeg(photograph(30, 20))
    with_range, without = decode_rgb(content, "photo", (0, 4095)), decode_rgb(content, "photo")
    assert with_range.tobytes() == without.tobytes()


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_values_without_a_known_range_are_refused(dtype):
    content = io.BytesIO()
    Image.fromarray(np.ones((4, 4), dtype=dtype)).save(content, "TIFF")
    with pytest.raises(UnreadableImage, match="^photo: floating-point .*; give pixel_range$") as e:
        decode_rgb(content.getvalue(), "photo")
    assert e.value.reason == "unknown range of values"


@pytest.mark.parametrize(
    ("content", "reason", "message"),
    [
        (b"", "damaged", "^photo: the file is empty .0 bytes.$"),
        (b"some text", "unknown format", "^photo: no format that Pillow knows$"),
        (b"\n<!DOCTYPE html>", "unknown format", "^photo: this is an HTML page$"),
        (jpeg(photograph(90, 80))[:1500], "damaged", "^photo: .*truncated"),
    ],
)
def test_the_reasons_of_unreadable_images(content, reason, message):
    with pytest.raises(UnreadableImage, match=message) as caught:
        decode_rgb(content, "photo")
    assert caught.value.reason == reason


def test_an_image_of_too_many_pixels(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(UnreadableImage, match="^photo: .* exceeds limit") as caught:
        decode_rgb(jpeg(photograph(64, 48)), "photo")
    assert caught.value.reason == "too many pixels"


def test_hidden_names():
    hidden = ("._a.jpg", ".DS_Store", ".ipynb_checkpoints", "__MACOSX")
    assert all(map(is_hidden, hidden)) and not any(map(is_hidden, ("a.jpg", "_a", "__a", "a.b")))
