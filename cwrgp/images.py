"""Decoding of image files, and what an unreadable one is."""

from __future__ import annotations

import os
from typing import IO

import numpy as np
from PIL import Image

# Pillow's errors for a file that it cannot decode (UnidentifiedImageError is an OSError).
UNREADABLE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".tif", ".tiff")


def open_rgb(file: str | os.PathLike[str] | IO[bytes], name: str) -> Image.Image:
    """Decodes an image file.

    Args:
        file: a path or an open file.
        name: of the image, for error messages.

    Returns:
        RGB with 8 bits per channel; 16-bit images keep their upper 8 bits.

    Raises:
        OSError: it has 32 bits per pixel, whose range is unknown.
        UNREADABLE: Pillow cannot decode it.
    """
    with Image.open(file) as image:
        if image.mode in ("I", "F"):
            raise OSError(f"{name}: 32 bits per pixel are not supported, 8 or 16 are")
        if image.mode.startswith("I;16"):  # convert would clip them at 255
            return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
        return image.convert("RGB")
