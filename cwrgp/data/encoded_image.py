"""The content of an image file, decoded with libjpeg-turbo where that gives what Pillow gives."""

from __future__ import annotations

import io

import numpy as np
import simplejpeg
from PIL import Image

from cwrgp.images import decode_rgb, orientation_of

# Its values: whether the image is mirrored, and then how many quarter turns counterclockwise.
_TURNS = {
    1: (False, 0),
    2: (True, 0),
    3: (False, 2),
    4: (True, 2),
    5: (True, 1),
    6: (False, 3),
    7: (True, 3),
    8: (False, 1),
}

# What begins the segments in which Pillow looks for an orientation: EXIF and XMP. They may follow
# others of any length.
_ORIENTED = (b"Exif\0", b"http://ns.adobe.com/xap/")


class EncodedImage:
    """An image file whose size is known before it is decoded.

    JPEG files are decoded by libjpeg-turbo with the exact DCT, which gives the pixels that Pillow
    gives. Pillow decodes other formats, and whatever libjpeg-turbo refuses.

    Args:
        content: of the file.
        name: of the image, for error messages.

    Attributes:
        height: in pixels, after the rotation that EXIF or XMP asks for.
        width: likewise.

    Raises:
        UnreadableImage: neither can decode it.
    """

    def __init__(self, content: bytes, name: str) -> None:
        self._content = content
        self._name = name
        self._pixels: np.ndarray | None = None
        self._orientation = 1
        if _is_plain_jpeg(content):
            self._orientation = _orientation(content)
            size = simplejpeg.decode_jpeg_header(content)[:2]
            self.height, self.width = size[::-1] if self._orientation >= 5 else size
        else:
            self._pixels = np.array(decode_rgb(content, name))
            self.height, self.width = self._pixels.shape[:2]

    def decode(self, scale: float = 1.0) -> np.ndarray:
        """The pixels, uint8 (H, W, 3).

        Args:
            scale: 1 for all of them. With less, a JPEG file may be decoded at 1/2, 1/4 or 1/8 of
                its size, whichever is the smallest that is not below this scale.
        """
        if self._pixels is not None:
            return self._pixels
        factor = next((f for f in (8, 4, 2) if f * scale <= 1), 1)
        height, width = self.height, self.width
        if self._orientation >= 5:
            height, width = width, height
        try:
            pixels = simplejpeg.decode_jpeg(
                self._content, "RGB", min_height=-(-height // factor), min_width=-(-width // factor)
            )
        except ValueError:
            return np.array(decode_rgb(self._content, self._name))
        mirrored, turns = _TURNS[self._orientation]
        return np.rot90(pixels[:, ::-1] if mirrored else pixels, turns)


def _is_plain_jpeg(content: bytes) -> bool:
    """Whether libjpeg-turbo gives the RGB that Pillow gives, and it is not too large for Pillow."""
    if not content.startswith(b"\xff\xd8\xff"):
        return False
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(content)
    except ValueError:
        return False
    return colours in ("YCbCr", "Gray") and height * width <= (Image.MAX_IMAGE_PIXELS or np.inf)


def _orientation(content: bytes) -> int:
    """1 to 8; 1 if the file states none."""
    if not any(mark in content for mark in _ORIENTED):
        return 1
    with Image.open(io.BytesIO(content)) as image:
        return orientation_of(image)
