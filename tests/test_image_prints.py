"""Which images are equal, or look nearly the same."""

from __future__ import annotations

import os

import numpy as np
import pytest
from deep_images import WRITERS, png16
from images import encode
from photographs import jpeg, photograph
from PIL import Image

from cwrgp.image_prints import (
    Fingerprint,
    content_digest,
    difference_hash,
    fingerprints,
    first_similar,
    repeated_images,
)


@pytest.fixture(autouse=True)
def empty_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("CWRGP_CACHE", str(tmp_path_factory.mktemp("cache")))


def distance(a: bytes, b: bytes) -> int:
    """Bits in which the hashes of two files differ."""
    one, other = difference_hash(a), difference_hash(b)
    assert one is not None and other is not None
    return (one ^ other).bit_count()


def hash_by_loops(image: Image.Image) -> int:
    gray = np.asarray(image.convert("L")).astype(float)
    height, width = gray.shape
    assert height % 16 == width % 17 == 0
    value = 0
    for y in range(16):
        row = gray[y * height // 16 : (y + 1) * height // 16]
        parts = [row[:, x * width // 17 : (x + 1) * width // 17].mean() for x in range(17)]
        for x in range(16):
            value = 2 * value + int(parts[x + 1] > parts[x])
    return value


def test_the_difference_hash_is_that_of_its_definition():
    image = photograph(170, 128).convert("L")
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


def test_the_hash_survives_another_depth():
    photo = photograph(170, 128)
    plain = encode(photo, "PNG")
    values = np.asarray(photo).astype(np.uint16) * 257
    for writer in WRITERS.values():
        assert distance(writer(values), plain) == 0
    gray = np.asarray(photo.convert("L"))
    for dtype in (np.float32, np.int32):
        content = encode(Image.fromarray(gray.astype(dtype) * 1000), "TIFF")
        assert distance(content, plain) <= 2
    assert distance(png16(gray[..., None].astype(np.uint16) * 257), plain) <= 2


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF"])
@pytest.mark.parametrize("orientation", range(2, 9))
def test_the_hash_is_that_of_the_image_as_it_is_seen(kind, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    photo = photograph(170, 128)
    back = {2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE",
            6: "ROTATE_90", 7: "TRANSVERSE", 8: "ROTATE_270"}[orientation]  # fmt: skip
    stored = photo.transpose(Image.Transpose[back])
    assert distance(encode(stored, kind, exif=exif), encode(photo, kind)) <= 12


def test_images_without_structure_have_no_hash(tmp_path):
    for number, name in enumerate("abc"):
        Image.new("RGB", (40, 40), (number, 9, 9)).save(tmp_path / f"{name}.png")
    (tmp_path / "d.png").write_bytes((tmp_path / "a.png").read_bytes())
    nan = encode(Image.fromarray(np.full((40, 40), np.nan, np.float32)), "TIFF")
    assert difference_hash(nan) is None
    found = list(fingerprints(sorted(tmp_path.iterdir())).values())
    assert [value.look for value in found] == [None] * 4
    equal, similar = repeated_images(found)
    assert equal.tolist() == [False, False, False, True] and not similar.any()


def test_a_file_that_could_not_be_read_is_read_again(tmp_path, monkeypatch):
    file = tmp_path / "a.png"
    photograph(60, 40).save(file)
    with monkeypatch.context() as patch:
        patch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
        assert fingerprints([file])[file] is None
    found = fingerprints([file])[file]
    assert found == (content_digest(file.read_bytes()), difference_hash(file.read_bytes()))
    # The next time nothing is computed, until the file changes.
    monkeypatch.setattr("cwrgp.image_prints.difference_hash", lambda content: 5)
    assert fingerprints([file])[file] == found
    os.utime(file, ns=(1, 1))
    assert fingerprints([file])[file].look == 5


def test_the_first_similar_one():
    looks = [None, 0, 2**256 - 1, 0b1, 2**255]
    others = [None, 2**256 - 2, 0b11, 0, 2**255]
    assert first_similar(looks, others, distance=1).tolist() == [-1, 3, 1, 2, 3]
    assert first_similar(looks, others, distance=0).tolist() == [-1, 3, -1, -1, 4]
    assert first_similar(looks, [None]).tolist() == [-1] * 5
    assert first_similar([], looks).tolist() == []


def test_repeated_images_count_bits():
    prints = [
        Fingerprint("a", 0),
        Fingerprint("b", 0b11),
        Fingerprint("c", 0b111),
        Fingerprint("d", 2**256 - 1),
        Fingerprint("d", 2**255),
    ]
    equal, similar = repeated_images(prints, distance=2)
    assert equal.tolist() == [False, False, False, False, True]
    # c differs from b in one bit, and the last from a; but it repeats d.
    assert similar.tolist() == [False, True, True, False, False]
    many = [Fingerprint(str(i), i << 20) for i in range(5000)]
    many[4800] = Fingerprint("x", many[3].look)
    assert repeated_images(many, distance=0)[1].nonzero()[0].tolist() == [4800]
