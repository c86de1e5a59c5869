"""The fast decoder gives Pillow's pixels, or leaves the file to Pillow."""

from __future__ import annotations

import io

import numpy as np
import pytest
from deep_images import BAD_EXIF, DAMAGED_EXIF
from photographs import differences, jpeg, photograph
from PIL import Image

from cwrgp.data.encoded_image import EncodedImage
from cwrgp.images import UnreadableImage, decode_rgb


def both(content: bytes) -> tuple[EncodedImage, np.ndarray]:
    image = EncodedImage(content, "photo")
    expected = np.asarray(decode_rgb(content, "photo"))
    assert (image.height, image.width) == expected.shape[:2]
    return image, expected


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize(
    "options",
    [
        {"quality": 30},
        {"quality": 95, "subsampling": 0},
        {"subsampling": 1},
        {"progressive": True},
        {"optimize": True, "restart_marker_blocks": 3},
    ],
)
@pytest.mark.parametrize("size", [(131, 90), (1, 70), (70, 1), (16, 16)])
def test_jpeg_files(mode, options, size):
    image, expected = both(jpeg(photograph(*size).convert(mode), **options))
    assert (image.decode() == expected).all()


def test_colours_that_are_stored_as_rgb():
    image, expected = both(jpeg(photograph(60, 40), keep_rgb=True))
    assert (image.decode() == expected).all()


@pytest.mark.parametrize("orientation", range(10))
def test_the_orientation_of_exif_is_applied(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    image, expected = both(jpeg(photograph(400, 260), exif=exif))
    assert (image.decode() == expected).all()
    turned = 5 <= orientation <= 8
    assert expected.shape == ((400, 260, 3) if turned else (260, 400, 3))
    assert image.decode(0.5).shape == ((200, 130, 3) if turned else (130, 200, 3))


def test_the_orientation_may_stand_in_xmp_or_behind_long_segments():
    plain = jpeg(photograph(40, 26))
    exif = Image.Exif()
    exif[0x0112] = 6
    stated = _segment(0xE1, b"Exif\0\0" + exif.tobytes().removeprefix(b"Exif\0\0"))
    xmp = b'<x:xmpmeta xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/>'
    for segments in (
        _segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + xmp),
        2 * _segment(0xE2, b"ICC_PROFILE\0" + bytes(65000)) + stated,
    ):
        image, expected = both(plain[:2] + segments + plain[2:])
        assert expected.shape == (40, 26, 3)
        assert (image.decode() == expected).all()


def _segment(marker: int, content: bytes) -> bytes:
    return bytes([0xFF, marker]) + (len(content) + 2).to_bytes(2, "big") + content


@pytest.mark.parametrize("exif", [BAD_EXIF, DAMAGED_EXIF])
def test_damaged_exif_is_ignored(exif):
    image, expected = both(jpeg(photograph(60, 40), exif=exif))
    assert (image.decode() == expected).all() and expected.shape == (40, 60, 3)


@pytest.mark.parametrize(
    ("kind", "mode"),
    [("PNG", "RGB"), ("PNG", "RGBA"), ("PNG", "P"), ("PNG", "LA"), ("PNG", "1"), ("WEBP", "RGB"),
     ("BMP", "RGB"), ("TIFF", "CMYK"), ("PNG", "I;16")],
)  # fmt: skip
def test_other_formats_are_left_to_pillow(kind, mode):
    photo = photograph(50, 30)
    if mode == "I;16":
        photo = Image.fromarray(np.asarray(photo.convert("L")).astype(np.uint16) * 257)
    else:
        photo = photo.convert(mode)
    file = io.BytesIO()
    photo.save(file, kind)
    image, expected = both(file.getvalue())
    assert (image.decode(0.1) == expected).all()


@pytest.mark.parametrize(
    ("scale", "factor"),
    [(1.0, 1), (0.51, 1), (0.5, 2), (0.26, 2), (0.25, 4), (0.13, 4), (0.125, 8), (0.01, 8)],
)
def test_a_smaller_scale_is_never_below_what_is_asked_for(scale, factor):
    photo = photograph(803, 605)
    pixels = EncodedImage(jpeg(photo, quality=95), "photo").decode(scale)
    height, width = -(-605 // factor), -(-803 // factor)
    assert pixels.shape == (height, width, 3)
    smaller = photo.resize((width, height), Image.Resampling.BOX)
    assert differences(pixels, smaller).mean() < 6


def test_damaged_files_are_unreadable():
    content = jpeg(photograph(300, 200))
    for damaged in (b"", b"\xff\xd8\xff", content[:40], content[: len(content) // 2], b"text"):
        with pytest.raises(UnreadableImage, match="^photo: "):
            EncodedImage(damaged, "photo").decode()


def test_bytes_after_the_end_do_no_harm():
    """Cameras append data of their own."""
    content = jpeg(photograph(64, 48))
    image, expected = both(content + b"\0" * 100)
    assert (image.decode() == expected).all()
    assert (expected == np.asarray(decode_rgb(content, "photo"))).all()


def test_pillows_limit_of_pixels_holds(monkeypatch):
    content = jpeg(photograph(64, 48))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(UnreadableImage, match="photo: .* exceeds limit"):
        EncodedImage(content, "photo")
