"""Decoding of image files, what an unreadable one is, and ImageNet's statistics."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageOps

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".tif", ".tiff")

# Pillow's errors for a file that it cannot decode (UnidentifiedImageError is an OSError).
_PILLOW_ERRORS = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)

IMAGENET_MEAN = (0.485, 0.456, 0.406)  # of R, G, B in units of [0, 1]
IMAGENET_STD = (0.229, 0.224, 0.225)


class UnreadableImage(OSError):
    """An image file that cannot be decoded."""


def decode_rgb(content: bytes | np.ndarray, name: str) -> Image.Image:
    """Decodes an image with Pillow.

    Args:
        content: of the file, or RGB pixels, uint8 (H, W, 3).
        name: of the image, for error messages.

    Returns:
        RGB with 8 bits per channel, turned as its EXIF orientation says; 16-bit images keep their
        upper 8 bits.

    Raises:
        UnreadableImage: Pillow cannot decode it, or it has 32 bits per pixel, whose range is
            unknown.
    """
    if isinstance(content, np.ndarray):
        return Image.fromarray(content)
    try:
        with Image.open(io.BytesIO(content)) as image:
            if image.mode in ("I", "F"):
                raise UnreadableImage("32 bits per pixel are not supported, 8 or 16 are")
            if image.mode.startswith("I;16"):  # convert would clip them at 255
                return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
            return ImageOps.exif_transpose(image).convert("RGB")
    except _PILLOW_ERRORS as error:
        raise UnreadableImage(f"{name}: {error}") from error
