"""Images for a detector: `cwrgp.images`, in the format of the configuration."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from detectron2.data.detection_utils import convert_PIL_to_numpy
from detectron2.utils.file_io import PathManager

from cwrgp.images import UNKNOWN_RANGE, UnreadableImage, decode, explain


def read_image(
    file: str, image_format: str, *, turned: bool = True, pixel_range: Sequence[float] = ()
) -> np.ndarray:
    """Reads an image as ``detectron2.data.detection_utils.read_image`` does.

    Args:
        file: path.
        image_format: ``INPUT.FORMAT``.
        turned: whether the EXIF orientation is applied.
        pixel_range: the values of black and white of 16-bit, 32-bit and floating-point images;
            empty: 0 and 65535 for 16 bits.

    Returns:
        (H, W, C), uint8 for RGB, BGR and L.

    Raises:
        UnreadableImage: it cannot be opened or decoded.
        ValueError: 32-bit or floating-point pixels without ``pixel_range``.
    """
    try:
        with PathManager.open(file, "rb") as stream:
            content = stream.read()
    except OSError as error:
        found = explain(error)
        raise UnreadableImage(f"{file}: {found}", found.reason) from error
    try:
        image = decode(content, file, pixel_range, turned=turned)
    except UnreadableImage as error:
        if error.reason != UNKNOWN_RANGE:
            raise
        raise ValueError(
            f"{file} has floating-point or 32-bit pixels: set INPUT.PIXEL_RANGE to the values of"
            " black and white"
        ) from error
    return convert_PIL_to_numpy(image, image_format)
