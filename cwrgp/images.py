"""Decoding of image files, what an unreadable one is, and ImageNet's statistics."""

from __future__ import annotations

import io
import re
import struct
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
from PIL import Image, UnidentifiedImageError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".tif", ".tiff")

ORIENTATION = 0x0112  # the EXIF tag
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_TURNS_BACK = {**_TURNS, 6: _TURNS[8], 8: _TURNS[6]}

PixelKind = Literal["8-bit", "16-bit", "float"]

# Why an image is unreadable.
DAMAGED = "damaged"
TOO_LARGE = "too many pixels"
UNKNOWN_FORMAT = "unknown format"
UNKNOWN_RANGE = "unknown range of values"
NOT_OPENED = "cannot be opened"
REASONS = (DAMAGED, TOO_LARGE, UNKNOWN_FORMAT, UNKNOWN_RANGE, NOT_OPENED)

# Pillow's errors for a file that it cannot decode.
PILLOW_ERRORS = (
    OSError,
    EOFError,
    SyntaxError,
    ValueError,
    LookupError,
    OverflowError,
    struct.error,
    Image.DecompressionBombError,
)
_BITS, _PLANES = 258, 284  # TIFF's tags of bits per channel and of how the channels are stored
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
    content: bytes | np.ndarray,
    name: str,
    pixel_range: Sequence[float] | None = None,
    *,
    turned: bool = True,
) -> Image.Image:
    """`decode`, as RGB; the content may also be RGB pixels, uint8 (H, W, 3)."""
    if isinstance(content, np.ndarray):
        return Image.fromarray(content)
    return decode(content, name, pixel_range, turned=turned).convert("RGB")


def decode(
    content: bytes, name: str, pixel_range: Sequence[float] | None = None, *, turned: bool = True
) -> Image.Image:
    """Decodes an image with Pillow.

    Args:
        content: of the file.
        name: of the image, for error messages.
        pixel_range: the values (low, high) that become 0 and 255; values between them are mapped
            linearly, others are clipped. It has no effect on images of 8 bits per channel.
        turned: whether the EXIF orientation is applied. Damaged EXIF data are ignored.

    Returns:
        8 bits per channel or less, in Pillow's mode of the file; L, RGB or CMYK where the file has
        more. Without ``pixel_range``, 16-bit values are divided by 257 and rounded, so that 65535
        becomes 255.

    Raises:
        UnreadableImage: Pillow cannot decode it, or its values are floating-point numbers or
            32-bit integers and there is no ``pixel_range``.
    """
    with _readable(name, content), Image.open(io.BytesIO(content)) as image:
        kind = pixel_kind(image)
        if kind == "float" and not pixel_range:
            raise UnreadableImage(
                "floating-point or 32-bit values have no known range; give pixel_range",
                UNKNOWN_RANGE,
            )
        # Pillow turns a TIFF file when it loads it, and then the tag is gone.
        is_tiff = image.format == "TIFF"
        stated = orientation_of(image) if is_tiff else 1
        if kind == "8-bit":
            image.load()
            pixels = image.copy()
        else:
            values = to_8_bits(read_values(image, content), pixel_range)
            if image.mode == "CMYK":
                pixels = Image.frombytes("CMYK", values.shape[1::-1], values.tobytes())
            else:
                pixels = Image.fromarray(values)
        if is_tiff:
            back = None if turned else _TURNS_BACK.get(stated)
            return pixels if back is None else pixels.transpose(back)
        return turn(pixels, orientation_of(image)) if turned else pixels


def orientation_of(image: Image.Image) -> int:
    """EXIF's orientation of an opened image, 1 to 8; 1 if there is none or EXIF is damaged.

    Of a PNG file without EXIF data before its pixels, it loads the image.
    """
    try:
        value = image.getexif().get(ORIENTATION, 1)
    except Exception:  # damaged EXIF data raise many classes
        return 1
    return value if value in range(1, 9) else 1


def turn(image: Image.Image, orientation: int) -> Image.Image:
    """An image as EXIF's orientation asks for it to be seen."""
    return image.transpose(_TURNS[orientation]) if orientation in _TURNS else image


def pixel_kind(image: Image.Image) -> PixelKind:
    """The kind of the values of an image that is not loaded; "float" includes 32-bit integers.

    Raises:
        UnreadableImage: a TIFF file whose 16-bit channels are stored one after the other.
    """
    raw_modes = _raw_modes(image)
    tags = getattr(image, "tag_v2", {})
    if tags.get(_PLANES) == 2 and max(tags.get(_BITS, (1,))) > 8 and len(image.getbands()) > 1:
        raise UnreadableImage(
            "a TIFF file with 16 bits in separate planes, which Pillow reads wrongly; store the "
            "channels of each pixel together",
            UNKNOWN_FORMAT,
        )
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
    """The values of an opened image that is not of 8 bits.

    Args:
        image: not loaded yet.
        content: of its file.

    Returns:
        (H, W), (H, W, 3) of RGB, or (H, W, 4) of CMYK. Alpha is left out, as Pillow does.
    """
    premultiplied = any(mode.startswith("RGBa;16") for mode in _raw_modes(image))
    if premultiplied:  # Pillow divides the bytes by alpha, so that they do not make up values
        image.tile = [_with_raw_mode(tile, lambda mode: f"RGBA{mode[4:]}") for tile in image.tile]  # type: ignore[attr-defined]
    values = np.asarray(image)
    if values.ndim == 2:
        return values
    # Pillow keeps the upper byte of each value. Another raw mode of the same size keeps the lower.
    with Image.open(io.BytesIO(content)) as again:
        gray = _raw_modes(again) == ["LA;16B"]
        again.tile = [_with_raw_mode(tile, _of_lower_bytes) for tile in again.tile]
        lower = np.asarray(again)
    if gray:  # read as RGBA: upper and lower byte of gray, then those of alpha
        return lower[..., 0].astype(np.uint16) << 8 | lower[..., 1]
    whole = values.astype(np.uint16) << 8 | lower
    if premultiplied:
        colours = whole[..., :3] * 65535.0 / np.maximum(whole[..., 3:], 1)
        return np.rint(colours).clip(0, 65535).astype(np.uint16)
    return whole if image.mode == "CMYK" else whole[..., :3]


def to_8_bits(values: np.ndarray, pixel_range: Sequence[float] | None) -> np.ndarray:
    """Values as uint8 of the same shape; see `decode_rgb`. NaN becomes 0."""
    if not pixel_range:
        return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)
    low, high = pixel_range
    scaled = (values.astype(np.float64) - low) * (255 / (high - low))
    return np.rint(np.nan_to_num(scaled, nan=0.0)).clip(0, 255).astype(np.uint8)


def explain(error: Exception, content: bytes = b"") -> UnreadableImage:
    """Why a file cannot be opened or decoded.

    Args:
        error: of the system, or of Pillow.
        content: of the file, at least its beginning.
    """
    if isinstance(error, UnreadableImage):
        return error
    if isinstance(error, OSError) and error.errno is not None:  # the system's
        known = next((text for kind, text in _NOT_OPENED.items() if isinstance(error, kind)), None)
        return UnreadableImage(known or str(error.strerror or error), NOT_OPENED)
    if not content:
        return UnreadableImage("the file is empty (0 bytes)", DAMAGED)
    if isinstance(error, UnidentifiedImageError):
        what = _other_file(content) or "no format that Pillow knows"
        return UnreadableImage(what, UNKNOWN_FORMAT)
    large = isinstance(error, Image.DecompressionBombError)
    text = " ".join(str(error).split()) or type(error).__name__
    return UnreadableImage(text, TOO_LARGE if large else DAMAGED)


_MISSING = "no such file"
_NOT_OPENED = {
    FileNotFoundError: _MISSING,
    IsADirectoryError: "a folder, not a file",
    PermissionError: "no permission to read it",
}


def _other_file(content: bytes) -> str:
    """What a file is that is often found in place of an image; "" if it is none of these."""
    start = content[:1024].lower()
    if b"<html" in start or b"<!doctype" in start:
        return "this is an HTML page"
    if start.startswith(b"version https://git-lfs"):
        return "this is a Git LFS pointer, not the image; run git lfs pull"
    if start.lstrip(b"\xef\xbb\xbf \r\n\t").startswith((b"{", b"<?xml", b"<error")):
        return "this is text, such as a server's message"
    return ""


def reason_of(problem: str) -> str:
    """The one of `REASONS` that a description begins with: "damaged" of "damaged (cut off)"."""
    return problem.partition(" (")[0]


def is_missing(problem: str) -> bool:
    """Whether a description, as `cwrgp.image_check` gives it, says that there is no such file."""
    return problem == f"{NOT_OPENED} ({_MISSING})"


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


def _with_raw_mode(tile: Any, change: Callable[[str], str]) -> Any:
    """A part of an image, to be read in another raw mode."""
    arguments = tile[3]
    if isinstance(arguments, tuple):
        new: Any = (change(arguments[0]), *arguments[1:])
    else:
        new = change(arguments)
    # A plain tuple in older versions of Pillow.
    return tile._replace(args=new) if hasattr(tile, "_replace") else (*tile[:3], new)


def _of_lower_bytes(raw_mode: str) -> str:
    """Of 16 bits per channel: the raw mode of the other byte order."""
    if raw_mode == "LA;16B":
        return "RGBA"
    raw_mode = raw_mode.replace("RGBa", "RGBA")
    order = raw_mode[-1].replace("N", "L" if sys.byteorder == "little" else "B")
    return raw_mode[:-1] + ("B" if order == "L" else "L")
