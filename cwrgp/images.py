"""How an image file is decoded."""

from __future__ import annotations

import os
from typing import IO

import numpy as np
from PIL import Image

# What Pillow raises for a file that is not the image it claims to be (UnidentifiedImageError is an
# OSError).
UNREADABLE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)


IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".tif", ".tiff"})


def open_rgb(file: str | os.PathLike[str] | IO[bytes], name: str) -> Image.Image:
    """Decodes an image file.

    Args:
        file: a path or an open file.
        name: of the image, for the message.

    Returns:
        8 bits, RGB; 16-bit images keep their upper 8 bits.

    Raises:
        OSError: it has 32 bits a pixel, whose range is anybody's guess; or another of
            :data:`UNREADABLE`, as Pillow has it.
    """
    with Image.open(file) as image:
        if image.mode in ("I", "F"):
            raise OSError(f"{name}: 32 bits a pixel are not supported, 8 or 16 are")
        if image.mode.startswith("I;16"):  # which convert would cut off at 255
            return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
        return image.convert("RGB")
