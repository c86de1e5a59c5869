"""Decoding of images with more than 8 bits, and the reasons of unreadable ones."""

from __future__ import annotations

import io

import cv2
import numpy as np
import pytest
from deep_images import BAD_EXIF, DAMAGED_EXIF, WRITERS, png16, tiff16
from photographs import jpeg, photograph
from PIL import Image

from cwrgp.images import UnreadableImage, decode, decode_rgb, is_hidden, to_8_bits

RNG = np.random.default_rng(0)
GRAY = RNG.integers(0, 65536, (7, 11)).astype(np.uint16)
BGR = RNG.integers(0, 65536, (7, 11, 3)).astype(np.uint16)
BGRA = RNG.integers(0, 65536, (7, 11, 4)).astype(np.uint16)
RAW = [cv2.IMWRITE_TIFF_COMPRESSION, 1]


def encode(values: np.ndarray, suffix: str, options: list[int]) -> bytes:
    """A file that OpenCV writes, whose channels are in the order B, G, R."""
    return cv2.imencode(suffix, values, options)[1].tobytes()


def as_seen(stored: np.ndarray, orientation: int) -> np.ndarray:
    """By EXIF 2.3, tag 0x0112: where the first row and column of the file are."""
    return {
        1: stored, 2: stored[:, ::-1], 3: stored[::-1, ::-1], 4: stored[::-1],
        5: stored.swapaxes(0, 1), 6: np.rot90(stored, -1),
        7: np.rot90(stored, 2).swapaxes(0, 1), 8: np.rot90(stored),
    }[orientation]  # fmt: skip


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


@pytest.mark.parametrize("writer", WRITERS)
def test_colours_of_sixteen_bits(writer):
    rgb = BGR[..., ::-1]
    assert (np.asarray(decode_rgb(WRITERS[writer](rgb), "photo")) == rounded(rgb)).all()
    ranged = np.asarray(decode_rgb(WRITERS[writer](rgb % 4096), "photo", (0, 4095)))
    assert (ranged == np.rint((rgb % 4096) * (255 / 4095))).all()


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("deflated", [False, True])
def test_colours_of_sixteen_bits_that_are_multiplied_by_alpha(order, deflated):
    alpha = np.linspace(9000, 65535, 77).reshape(7, 11, 1)
    values = np.dstack([np.rint(BGR * (alpha / 65535)), alpha.round()]).astype(np.uint16)
    content = tiff16(values, order=order, deflated=deflated, extra=1)
    found = np.asarray(decode_rgb(content, "photo")).astype(float)
    assert abs(found - BGR / 257).max() < 0.6  # half a level, and what the product lost
    clear = tiff16(values * np.uint16([1, 1, 1, 0]), order=order, deflated=deflated, extra=1)
    assert np.asarray(decode_rgb(clear, "photo")).shape == (7, 11, 3)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("deflated", [False, True])
def test_cmyk_of_sixteen_bits(order, deflated):
    content = tiff16(BGRA, order=order, deflated=deflated, photometric=5)
    assert (np.asarray(decode(content, "photo")) == rounded(BGRA)).all()
    inks = np.asarray(decode_rgb(content, "photo")).astype(float)
    expected = (255 - rounded(BGRA[..., :3])) * (255 - rounded(BGRA[..., 3:])) / 255
    assert abs(inks - expected).max() <= 1


@pytest.mark.parametrize("deflated", [False, True])
def test_sixteen_bits_in_separate_planes_are_refused(deflated):
    """Pillow takes the bytes of such a file for values of 8 bits, or loses half of their bits."""
    content = tiff16(BGR, separate=True, deflated=deflated)
    with pytest.raises(UnreadableImage, match="^photo: a TIFF file with 16 bits in sep") as caught:
        decode_rgb(content, "photo")
    assert caught.value.reason == "unknown format"


def test_gray_with_alpha_has_sixteen_bits_too():
    content = png16(np.stack([GRAY, GRAY[::-1]], axis=-1))
    assert (np.asarray(decode_rgb(content, "photo")) == rounded(GRAY)[..., None]).all()


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


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_of_colours_of_sixteen_bits_is_applied_or_not(writer, orientation):
    rgb = BGR[..., ::-1]
    content = WRITERS[writer](rgb, orientation=orientation)
    stored = rounded(rgb)
    turned = np.asarray(decode(content, "photo"))
    assert (turned == as_seen(stored, orientation)).all()
    assert (np.asarray(decode(content, "photo", turned=False)) == stored).all()


@pytest.mark.parametrize("exif", [BAD_EXIF, DAMAGED_EXIF])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_damaged_exif_is_ignored(exif, kind):
    file, plain = io.BytesIO(), io.BytesIO()
    photograph(30, 20).save(file, kind, exif=exif)
    photograph(30, 20).save(plain, kind)
    expected = np.asarray(Image.open(plain).convert("RGB"))
    assert (np.asarray(decode_rgb(file.getvalue(), "photo")) == expected).all()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_images_of_eight_bits_keep_their_mode_until_they_become_rgb(mode, orientation):
    exif, file = Image.Exif(), io.BytesIO()
    exif[0x0112] = orientation
    image = photograph(30, 20).convert(mode)
    image.save(file, "JPEG" if mode == "CMYK" else "PNG", exif=exif)
    found = decode(file.getvalue(), "photo")
    assert found.mode == mode
    stored = np.asarray(Image.open(file).convert("RGB"))
    for turned in (True, False):
        rgb = np.asarray(decode_rgb(file.getvalue(), "photo", turned=turned))
        assert (rgb == as_seen(stored, orientation if turned else 1)).all()


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, of what it skips
@pytest.mark.parametrize("suffix", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_errors_of_damaged_headers_are_those_of_unreadable_images(suffix):
    """Whatever a damaged byte makes Pillow raise, the image is unreadable, or is read."""
    file, rng, exif = io.BytesIO(), np.random.default_rng(0), Image.Exif()
    exif[0x0112] = 6
    photograph(12, 9).save(file, suffix, exif=exif)
    failed = 0
    for _ in range(300):
        content = bytearray(file.getvalue())
        ends = [*range(200), *range(-200, 0)]
        for place in rng.choice(ends, 3):
            content[place] = rng.integers(0, 256)
        try:
            decode_rgb(bytes(content), "photo")
        except UnreadableImage:
            failed += 1
    assert failed > 30


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
        (b"version https://git-lfs.github.com", "unknown format", "Git LFS pointer.*git lfs pull"),
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
