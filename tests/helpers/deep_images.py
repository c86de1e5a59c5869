"""Image files of 16 bits per channel, written byte by byte: Pillow writes no such colour images."""

from __future__ import annotations

import functools
import struct
import zlib
from collections.abc import Callable

import numpy as np

# Of JPEG files; Pillow raises for the first, and reads beyond the end of the second.
BAD_EXIF = b"Exif\0\0no TIFF header"
DAMAGED_EXIF = b"Exif\0\0MM\0*" + struct.pack(">IH", 8, 9) + b"\xff" * 7

_PNG_COLOURS = {1: 0, 2: 4, 3: 2, 4: 6}  # number of channels -> colour type


def png16(values: np.ndarray, *, orientation: int = 1) -> bytes:
    """A PNG file: gray, gray with alpha, RGB or RGBA.

    Args:
        values: uint16 (H, W, channels).
        orientation: of EXIF.
    """

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    height, width, channels = values.shape
    header = struct.pack(">IIBBBBB", width, height, 16, _PNG_COLOURS[channels], 0, 0, 0)
    exif = b"MM\0*" + struct.pack(">IHHHIHHI", 8, 1, 0x0112, 3, 1, orientation, 0, 0)
    rows = b"".join(b"\0" + row.tobytes() for row in values.astype(">u2"))
    parts = [(b"IHDR", header), (b"eXIf", exif), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(kind, data) for kind, data in parts)


def tiff16(
    values: np.ndarray,
    *,
    order: str = "<",
    photometric: int = 2,
    extra: int | None = None,
    deflated: bool = False,
    separate: bool = False,
    orientation: int = 1,
) -> bytes:
    """A TIFF file of one strip.

    Args:
        values: uint16 (H, W, channels).
        order: of bytes, "<" or ">".
        photometric: 1: gray; 2: RGB; 5: CMYK.
        extra: what the fourth channel of RGB is; 1: alpha that colours are multiplied by; 2: alpha.
        deflated: compressed, which Pillow leaves to libtiff.
        separate: the channels one after the other, each a strip.
        orientation: the tag.
    """
    height, width, channels = values.shape
    planes = np.moveaxis(values, 2, 0) if separate else [values]
    strips = [plane.astype(f"{order}u2").tobytes() for plane in planes]
    strips = [zlib.compress(strip) for strip in strips] if deflated else strips
    starts = (8 + np.cumsum([0, *map(len, strips)])).tolist()
    tags: list[tuple[int, str, list[int]]] = [
        (256, "I", [width]),
        (257, "I", [height]),
        (258, "H", [16] * channels),
        (259, "H", [8 if deflated else 1]),
        (262, "H", [photometric]),
        (273, "I", starts[:-1]),
        (274, "H", [orientation]),
        (277, "H", [channels]),
        (278, "I", [height]),
        (279, "I", [len(strip) for strip in strips]),
        (284, "H", [2 if separate else 1]),
        *([] if extra is None else [(338, "H", [extra])]),
    ]
    body, entries = b"".join(strips), b""
    body += b"\0" * (len(body) % 2)
    for tag, kind, numbers in tags:
        data = struct.pack(f"{order}{len(numbers)}{kind}", *numbers)
        if len(data) > 4:
            place = 8 + len(body)
            body += data
            data = struct.pack(f"{order}I", place)
        entries += struct.pack(f"{order}HHI", tag, {"H": 3, "I": 4}[kind], len(numbers))
        entries += data.ljust(4, b"\0")
    start = b"II" if order == "<" else b"MM"
    header = start + struct.pack(f"{order}HI", 42, 8 + len(body))
    return header + body + struct.pack(f"{order}H", len(tags)) + entries + b"\0" * 4


def with_alpha(write: Callable[..., bytes], values: np.ndarray, **options: int) -> bytes:
    """A file whose fourth channel has values of its own."""
    alpha = np.linspace(65535, 0, values[..., 0].size).astype(np.uint16)
    return write(np.dstack([values, alpha.reshape(values.shape[:2])]), **options)


# Each writes RGB, uint16 (H, W, 3), and takes ``orientation``.
WRITERS: dict[str, Callable[..., bytes]] = {
    "png": png16,
    "png with alpha": functools.partial(with_alpha, png16),
    "tiff": tiff16,
    "tiff, big-endian": functools.partial(tiff16, order=">"),
    "tiff, compressed": functools.partial(tiff16, deflated=True),
    "tiff, compressed, big-endian": functools.partial(tiff16, deflated=True, order=">"),
    "tiff with alpha": functools.partial(with_alpha, tiff16, extra=2),
    "tiff, compressed, with alpha": functools.partial(with_alpha, tiff16, extra=2, deflated=True),
}
