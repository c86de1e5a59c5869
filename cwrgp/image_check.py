"""Image files before they are used: size, orientation, kind of values, and damage."""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import BinaryIO

from PIL import Image

from cwrgp.file_io.file_facts import facts_of_files
from cwrgp.images import (
    PILLOW_ERRORS,
    PixelKind,
    explain,
    orientation_of,
    pixel_kind,
    read_values,
)

TWELVE_BITS = 4096  # 16-bit images whose values are all smaller would be nearly black

_VERSION = 2  # of what is kept in the cache
_STORED_SIZE = (256, 257)  # TIFF's tags of width and height


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

    A file with a problem is looked at again each time: the cause may have been a lost connection,
    permissions, or an older Pillow.

    Args:
        files: the paths.
        workers: threads; None: four for each core.
    """
    with warnings.catch_warnings():  # here, since filters are those of all threads
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        facts = facts_of_files(
            files,
            lambda file: astuple(inspect_image(file)),
            name="images",
            version=_VERSION,
            keep=lambda values: not ImageFile(*values).problem,
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
        return _with_problem(error, b"")


def unknown_range(
    key: str, *, images: int, floating: Sequence[str], sixteen: int, largest: int
) -> str:
    """Why images would be black or white because the range of their values is not known.

    Args:
        key: of the configuration, which states the range; it is empty.
        images: number of images of the set.
        floating: names of those with floating-point or 32-bit values.
        sixteen: number of 16-bit images.
        largest: the largest value of all 16-bit images.

    Returns:
        With what to do about it; "" if the range is known.
    """
    if floating:
        return (
            f"{len(floating)} of {images} images have floating-point or 32-bit values, whose range "
            f"is not known; set {key} to the values [low, high] that become black and white; the "
            f"first is {floating[0]}"
        )
    if sixteen and largest < TWELVE_BITS:
        high = (1 << largest.bit_length()) - 1 or 1
        return (
            f"the values of all {sixteen} 16-bit images are below {TWELVE_BITS} (the largest is "
            f"{largest}), so they would be nearly black; set {key} to the values that become black "
            f"and white, such as [0, {high}]"
        )
    return ""


def unknown_range_of(key: str, files: Mapping[Path, ImageFile]) -> str:
    """`unknown_range` of a set of images that can be read.

    Args:
        key: as there.
        files: what is known of them.
    """
    sixteen = [known.max_value or 0 for known in files.values() if known.kind == "16-bit"]
    return unknown_range(
        key,
        images=len(files),
        floating=[str(file) for file, known in files.items() if known.kind == "float"],
        sixteen=len(sixteen),
        largest=max(sixteen, default=0),
    )


def _inspect(stream: BinaryIO) -> ImageFile:
    try:
        with Image.open(stream) as image:
            kind = pixel_kind(image)  # first: reading the orientation may load the image
            width, height = image.size
            max_value, orientation = None, None
            if image.format == "TIFF":  # Pillow turns it when it loads it
                width, height = (int(image.tag_v2[tag]) for tag in _STORED_SIZE)  # type: ignore[attr-defined]
                orientation = orientation_of(image)
            if kind == "16-bit":
                stream.seek(0)
                max_value = int(read_values(image, stream.read()).max())
            elif not _ends_well(stream, image.format):
                image.load()
            if orientation is None:
                stated = (
                    image.format != "PNG" or "exif" in image.info or _may_have_late_exif(stream)
                )
                orientation = orientation_of(image) if stated else 1
    except PILLOW_ERRORS as error:
        stream.seek(0)
        return _with_problem(error, stream.read(1024))
    return ImageFile(width, height, orientation, kind, max_value)


def _with_problem(error: Exception, content: bytes) -> ImageFile:
    found = explain(error, content)
    return ImageFile(problem=f"{found.reason} ({found})")


def _may_have_late_exif(stream: BinaryIO) -> bool:
    """Whether a PNG file has chunks that Pillow may only reach by decoding the pixels.

    The stream's position is kept.
    """
    position = stream.tell()
    stream.seek(8)
    found = False
    while not found and len(header := stream.read(8)) == 8:
        found = header[4:] in (b"eXIf", b"tEXt", b"zTXt", b"iTXt")
        stream.seek(int.from_bytes(header[:4], "big") + 4, os.SEEK_CUR)
    stream.seek(position)
    return found


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
