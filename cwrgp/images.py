"""Decoding of image files, what an unreadable one is, and ImageNet's statistics."""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".tif", ".tiff")

ORIENTATION = 0x0112  # the EXIF tag

PixelKind = Literal["8-bit", "16-bit", "float"]

# Why an image is unreadable.
DAMAGED = "damaged"
TOO_LARGE = "too many pixels"
UNKNOWN_FORMAT = "unknown format"
UNKNOWN_RANGE = "unknown range of values"
NOT_OPENED = "cannot be opened"
REASONS = (DAMAGED, TOO_LARGE, UNKNOWN_FORMAT, UNKNOWN_RANGE, NOT_OPENED)

# Pillow's errors for a file that it cannot decode.
PILLOW_ERRORS = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)
_TWO_BYTES = re.compile(";16([BLN])$")  # raw modes of 16 bits per channel, and their byte order

IMAGENET_MEAN = (0.485, 0.456, 0.406)  # of R, G, B in units of [0, 1]
IMAGENET_STD = (0.229, 0.224, 0.225)


class UnreadableImage(OSError):
    """An image file that cannot be decoded.

    Attributes:
        reason: one of `REASONS`.
    """

    def __init__(self, message: str, reason: str = DAMAGED) -> None:
        super().__init__(message)
        self.reason = reason


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is no part of a data set.

    Names with a leading dot are the system's or a tool's: ``.DS_Store``, ``.ipynb_checkpoints``,
    and ``._photo.jpg``, which holds attributes that macOS keeps beside ``photo.jpg``.
    """
    return name.startswith(".") or name == "__MACOSX"


def decode_rgb(
    content: bytes | np.ndarray, name: str, pixel_range: Sequence[float] | None = None
) -> Image.Image:
    """Decodes an image with Pillow.

    Args:
        content: of the file, or RGB pixels, uint8 (H, W, 3).
        name: of the image, for error messages.
        pixel_range: the values (low, high) that become 0 and 255; values between them are mapped
            linearly, others are clipped. It has no effect on images of 8 bits per channel.

    Returns:
        RGB with 8 bits per channel, turned as its EXIF orientation says. Without ``pixel_range``,
        16-bit values are divided by 257 and rounded, so that 65535 becomes 255.

    Raises:
        UnreadableImage: Pillow cannot decode it, or its values are floating-point numbers or
            32-bit integers and there is no ``pixel_range``.
    """
    if isinstance(content, np.ndarray):
        return Image.fromarray(content)
    with _readable(name, content), Image.open(io.BytesIO(content)) as image:
        kind = pixel_kind(image)
        if kind == "8-bit":
            return ImageOps.exif_transpose(image).convert("RGB")
        if kind == "float" and not pixel_range:
            raise UnreadableImage(
                "floating-point or 32-bit values have no known range; give pixel_range",
                UNKNOWN_RANGE,
            )
        pixels = Image.fromarray(to_8_bits(read_values(image, content), pixel_range))
        # Pillow turns a TIFF file when it loads it, and then the tag is gone.
        pixels.getexif()[ORIENTATION] = image.getexif().get(ORIENTATION, 1)
        return ImageOps.exif_transpose(pixels).convert("RGB")


def pixel_kind(image: Image.Image) -> PixelKind:
    """The kind of an opened image's values; "float" includes 32-bit integers."""
    raw_modes = _raw_modes(image)
    if image.mode == "F":
        return "float"
    if image.mode == "I":
        # Pillow scales PPM files to 65535. Older versions open 16-bit PNG files in this mode.
        known = all(re.search(";16[BLN]?$", mode) for mode in raw_modes)
        return "16-bit" if image.format == "PPM" or (raw_modes and known) else "float"
    if image.mode.startswith("I;16") or any(map(_TWO_BYTES.search, raw_modes)):
        return "16-bit"
    return "8-bit"


def read_values(image: Image.Image, content: bytes) -> np.ndarray:
    """The values of an opened image that is not of 8 bits: (H, W), or (H, W, 3) of RGB.

    Args:
        image: not loaded yet.
        content: of its file.
    """
    values = np.asarray(image)
    if values.ndim == 2:
        return values
    # Pillow keeps the upper byte of each value. Another raw mode of the same size keeps the lower.
    with Image.open(io.BytesIO(content)) as again:
        gray = _raw_modes(again) == ["LA;16B"]
        again.tile = [_with_lower_bytes(tile) for tile in again.tile]
        lower = np.asarray(again)
    if gray:  # read as RGBA: upper and lower byte of gray, then those of alpha
        return lower[..., 0].astype(np.uint16) << 8 | lower[..., 1]
    return (values.astype(np.uint16) << 8 | lower)[..., :3]


def to_8_bits(values: np.ndarray, pixel_range: Sequence[float] | None) -> np.ndarray:
    """Values as uint8 of the same shape; see `decode_rgb`. NaN becomes 0."""
    if not pixel_range:
        return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)
    low, high = pixel_range
    scaled = (values.astype(np.float64) - low) * (255 / (high - low))
    return np.rint(np.nan_to_num(scaled, nan=0.0)).clip(0, 255).astype(np.uint8)


def explain(error: Exception, content: bytes) -> UnreadableImage:
    """Why Pillow cannot decode a file, from its error."""
    if isinstance(error, UnreadableImage):
        return error
    if not content:
        return UnreadableImage("the file is empty (0 bytes)", DAMAGED)
    if isinstance(error, UnidentifiedImageError):
        page = b"<html" in content[:1024].lower() or b"<!doctype" in content[:1024].lower()
        what = "this is an HTML page" if page else "no format that Pillow knows"
        return UnreadableImage(what, UNKNOWN_FORMAT)
    large = isinstance(error, Image.DecompressionBombError)
    return UnreadableImage(" ".join(str(error).split()), TOO_LARGE if large else DAMAGED)


def reason_of(problem: str) -> str:
    """The one of `REASONS` that a description begins with: "damaged" of "damaged (cut off)"."""
    return problem.partition(" (")[0]


@contextmanager
def _readable(name: str, content: bytes) -> Iterator[None]:
    """Errors of Pillow become an `UnreadableImage` that names the image."""
    try:
        yield
    except PILLOW_ERRORS as error:
        found = explain(error, content)
        raise UnreadableImage(f"{name}: {found}", found.reason) from error


def _raw_modes(image: Image.Image) -> list[str]:
    """How the decoder of an opened image reads its bytes, such as "RGB;16B"; [] once loaded."""
    arguments = [tile[3] for tile in getattr(image, "tile", ())]
    firsts = [args[0] if isinstance(args, tuple) and args else args for args in arguments]
    return [first for first in firsts if isinstance(first, str)]


def _with_lower_bytes(tile: Any) -> Any:
    """A part of an image of 16 bits per channel, to be read in the other byte order."""
    arguments = tile[3]
    raw_mode = arguments[0] if isinstance(arguments, tuple) else arguments
    if raw_mode == "LA;16B":
        changed = "RGBA"
    else:
        order = raw_mode[-1].replace("N", "L" if sys.byteorder == "little" else "B")
        changed = raw_mode[:-1] + ("B" if order == "L" else "L")
    new = (changed, *arguments[1:]) if isinstance(arguments, tuple) else changed
    # A plain tuple in older versions of Pillow.
    return tile._replace(args=new) if hasattr(tile, "_replace") else (*tile[:3], new)
