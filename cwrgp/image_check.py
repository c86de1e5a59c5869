"""Image files before they are used: size, orientation, kind of values, damage, and digests."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image

from cwrgp.file_io.file_facts import facts_of_files
from cwrgp.images import (
    NOT_OPENED,
    ORIENTATION,
    PILLOW_ERRORS,
    PixelKind,
    explain,
    pixel_kind,
    read_values,
)

_VERSION = 1  # of what is kept in the cache
_STORED_SIZE = (256, 257)  # TIFF's tags of width and height
_HASH_SIDE = 8


@dataclass(frozen=True, slots=True)
class ImageFile:
    """What is known of an image file without its pixels.

    Attributes:
        width: in pixels, as stored.
        height: likewise.
        orientation: EXIF's, 1 to 8; 1: as stored.
        kind: of the values: "8-bit", "16-bit", or "float" for floating point and 32-bit integers.
        max_value: the largest value of a 16-bit image.
        problem: why the image cannot be read, one of `cwrgp.images.REASONS` and details in
            brackets; "" if it can.
    """

    width: int = 0
    height: int = 0
    orientation: int = 1
    kind: PixelKind = "8-bit"
    max_value: int | None = None
    problem: str = ""

    @property
    def size(self) -> tuple[int, int]:
        """Width and height as stored."""
        return self.width, self.height

    @property
    def size_as_seen(self) -> tuple[int, int]:
        """Width and height after the rotation that EXIF asks for."""
        return (self.height, self.width) if self.orientation >= 5 else (self.width, self.height)


def inspect_images(files: Sequence[Path], *, workers: int | None = None) -> dict[Path, ImageFile]:
    """`inspect_image` of many files, in threads and cached by path, size and time of change.

    Args:
        files: the paths.
        workers: threads; None: four for each core.
    """
    facts = facts_of_files(
        files,
        lambda file: astuple(inspect_image(file)),
        name="images",
        version=_VERSION,
        workers=workers,
    )
    return {file: ImageFile(*values) for file, values in facts.items()}


def inspect_image(file: Path | bytes) -> ImageFile:
    """Looks at the header and the end of an image file.

    The pixels are decoded only where they decide: of 16-bit images, whose largest value is needed,
    of a file with a suspicious end, and of a format whose end says nothing. A suspicious end alone
    is no problem, since Pillow reads JPEG files with bytes after the end.

    Args:
        file: a path, or the content.

    Returns:
        Always; an image that cannot be read has a ``problem``.
    """
    if isinstance(file, bytes):
        return _inspect(io.BytesIO(file))
    try:
        with file.open("rb") as stream:
            return _inspect(stream)
    except OSError as error:
        return ImageFile(problem=f"{NOT_OPENED} ({error.strerror or error})")


def fingerprints(
    files: Sequence[Path], *, workers: int | None = None
) -> dict[Path, tuple[str, int] | None]:
    """`content_digest` and `difference_hash` of many files, cached like `inspect_images`.

    Returns:
        None for an image that cannot be read.
    """
    facts = facts_of_files(files, _fingerprint, name="hashes", version=_VERSION, workers=workers)
    return {file: (facts[file][0], facts[file][1]) if facts[file][0] else None for file in facts}


def content_digest(content: bytes) -> str:
    """A digest of a file's content, in hexadecimal; equal for equal files only."""
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def difference_hash(content: bytes) -> int:
    """64 bits that images which look alike share, nearly all of them.

    Bit (y, x) says whether the image, in gray and reduced to 9 x 8, gets brighter from column x to
    x + 1 in row y. JPEG files are decoded at a fraction of their size.

    Raises:
        OSError, ValueError, SyntaxError: Pillow cannot decode the content.
    """
    size = (_HASH_SIDE + 1, _HASH_SIDE)
    with Image.open(io.BytesIO(content)) as image:
        image.draft("L", (8 * size[0], 8 * size[1]))
        if pixel_kind(image) == "8-bit":
            gray = image.convert("L").resize(size, Image.Resampling.BOX)
        else:
            gray = Image.fromarray(np.asarray(image).astype(np.float32)).resize(
                size, Image.Resampling.BOX
            )
    values = np.asarray(gray).astype(np.float64)
    bits = np.packbits(values[:, 1:] > values[:, :-1])
    return int.from_bytes(bits.tobytes(), "big")


def repeated_images(
    prints: Sequence[tuple[str, int]], *, distance: int = 2
) -> tuple[np.ndarray, np.ndarray]:
    """Which images repeat an earlier one.

    Args:
        prints: content digest and difference hash of each image.
        distance: number of bits in which the hashes of nearly equal images may differ.

    Returns:
        Two boolean arrays (n,): the content is that of an earlier image; the content is not, but
        the hash nearly is.
    """
    seen: set[str] = set()
    equal = np.zeros(len(prints), dtype=bool)
    for number, (digest, _) in enumerate(prints):
        equal[number] = digest in seen
        seen.add(digest)
    hashes = np.array([value for _, value in prints], dtype=np.uint64)
    bits = np.unpackbits(hashes.astype(">u8").view(np.uint8).reshape(-1, 8), axis=1)
    signs = bits.astype(np.float32) * 2 - 1
    similar = np.zeros(len(prints), dtype=bool)
    for start in range(0, len(prints), 1024):
        part = signs[start : start + 1024]
        close = part @ signs.T >= 64 - 2 * distance  # 64 minus twice the number of other bits
        before = np.tril(close, start - 1)  # row r is image start + r; columns before it
        similar[start : start + len(part)] = before.any(axis=1)
    return equal, similar & ~equal


def _fingerprint(file: Path) -> tuple[str, int]:
    try:
        content = file.read_bytes()
        return content_digest(content), difference_hash(content)
    except PILLOW_ERRORS:
        return "", 0


def _inspect(stream: BinaryIO) -> ImageFile:
    try:
        with Image.open(stream) as image:
            orientation = image.getexif().get(ORIENTATION, 1)
            kind = pixel_kind(image)
            width, height = image.size
            if image.format == "TIFF":  # Pillow's size may be the one after the rotation
                width, height = (int(image.tag_v2[tag]) for tag in _STORED_SIZE)  # type: ignore[attr-defined]
            max_value = None
            if kind == "16-bit":
                stream.seek(0)
                max_value = int(read_values(image, stream.read()).max())
            elif not _ends_well(stream, image.format):
                image.load()
    except PILLOW_ERRORS as error:
        stream.seek(0)
        found = explain(error, stream.read(1024))
        return ImageFile(problem=f"{found.reason} ({found})")
    known = orientation in range(1, 9)
    return ImageFile(width, height, orientation if known else 1, kind, max_value)


def _ends_well(stream: BinaryIO, format_name: str | None) -> bool:
    """Whether the file is complete, as far as its end shows. The stream's position is kept."""
    position = stream.tell()
    size = stream.seek(0, os.SEEK_END)
    stream.seek(max(0, size - 8))
    end = stream.read()
    stream.seek(4)
    length = int.from_bytes(stream.read(4), "little")
    stream.seek(position)
    if format_name in ("JPEG", "MPO"):
        return end.endswith(b"\xff\xd9")
    if format_name == "PNG":
        return end == b"IEND\xaeB`\x82"
    return format_name == "WEBP" and size == length + 8
