"""Images for a detector: Detectron2's reader, with 16-bit and float pixels and a choice of EXIF."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from detectron2.data.detection_utils import convert_PIL_to_numpy
from detectron2.utils.file_io import PathManager
from PIL import Image

from cwrgp.images import UnreadableImage

_ORIENTATION = 0x0112  # the EXIF tag
_TURN = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_TURN_BACK = {**_TURN, 6: _TURN[8], 8: _TURN[6]}
_PILLOW_ERRORS = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)


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
        UnreadableImage: it cannot be decoded.
        ValueError: 32-bit or floating-point pixels without ``pixel_range``.
    """
    try:
        with PathManager.open(file, "rb") as stream, Image.open(stream) as image:
            orientation = _orientation(image)
            image.load()
            # Pillow turns a TIFF when it is loaded, but no other format.
            if image.format == "TIFF" and not turned and orientation in _TURN:
                oriented = image.transpose(_TURN_BACK[orientation])
            elif image.format != "TIFF" and turned and orientation in _TURN:
                oriented = image.transpose(_TURN[orientation])
            else:
                oriented = image.copy()
            is_16_bit = image.mode.startswith("I;16") or (
                image.mode == "I" and image.format in ("PNG", "PPM")
            )
    except _PILLOW_ERRORS as error:
        raise UnreadableImage(f"{file}: {error}") from error
    if is_16_bit or oriented.mode in ("I", "F"):
        if not (pixel_range or is_16_bit):
            raise ValueError(
                f"{file} has floating-point or 32-bit pixels: set INPUT.PIXEL_RANGE to the values"
                " of black and white"
            )
        oriented = Image.fromarray(to_8_bit(np.asarray(oriented), pixel_range or (0, 65535)))
    return convert_PIL_to_numpy(oriented, image_format)


def to_8_bit(pixels: np.ndarray, pixel_range: Sequence[float]) -> np.ndarray:
    """Scales linearly, so that the range becomes 0 to 255, and rounds; values beyond are clipped.

    Args:
        pixels: of any shape.
        pixel_range: the values of black and white.

    Returns:
        uint8. NaN becomes black.
    """
    low, high = pixel_range
    scaled = (pixels.astype(np.float64) - low) * (255 / (high - low))
    return np.nan_to_num(scaled.round(), nan=0).clip(0, 255).astype(np.uint8)


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # damaged EXIF raises many classes; Detectron2 ignores it as well
        return 1
