"""Images whose values are not of 8 bits, in a range that the user states."""

from __future__ import annotations

import numpy as np

from cwrgp.data.base import LabelledImages
from cwrgp.images import decode_rgb

_JPEG = b"\xff\xd8\xff"


class InPixelRange:
    """A data set whose 16-bit and floating-point images are mapped to 8 bits by a range.

    They are decoded where they are read, so that whatever uses them sees the same pixels.

    Args:
        images: the data set.
        low: the value that becomes 0; smaller ones are clipped.
        high: the value that becomes 255; larger ones are clipped.

    Raises:
        ValueError: the range is empty.
    """

    def __init__(self, images: LabelledImages, low: float, high: float) -> None:
        if not low < high:
            raise ValueError(f"the pixel range {[low, high]} is not low < high")
        self.images = images
        self.pixel_range = (low, high)
        self.labels = images.labels

    def __len__(self) -> int:
        return len(self.images)

    def read(self, index: int) -> bytes | np.ndarray:
        content = self.images.read(index)
        if isinstance(content, np.ndarray) or content.startswith(_JPEG):  # of 8 bits
            return content
        return np.asarray(decode_rgb(content, self.name(index), self.pixel_range))

    def name(self, index: int) -> str:
        return self.images.name(index)
