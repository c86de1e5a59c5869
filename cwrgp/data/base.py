"""What a data set of images is."""

from __future__ import annotations

from typing import Protocol

import numpy as np


class LabelledImages(Protocol):
    """A data set of images.

    Attributes:
        labels: int64 (n,), -1 for an image without a label. An array, not a list: the workers of a
            loader share arrays, while lists are copied into each of them as they are read.
    """

    labels: np.ndarray

    def __len__(self) -> int: ...

    def read(self, index: int) -> bytes | np.ndarray:
        """The content of the image file, or RGB pixels, uint8 (H, W, 3).

        Raises:
            OSError: the file cannot be read.
        """

    def name(self, index: int) -> str:
        """The name of the image in a message."""


class StorageError(OSError):
    """The storage of the images cannot be read, which does not depend on the image.

    It ends a run, whereas an image that cannot be decoded is counted and replaced.
    """
