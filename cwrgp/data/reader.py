"""The one policy for images that cannot be read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import numpy as np
import torch
from PIL import Image

from cwrgp.data.base import LabelledImages, StorageError
from cwrgp.images import NOT_OPENED, REASONS, UnreadableImage, decode_rgb

T = TypeVar("T")

_CODES = {reason: number for number, reason in enumerate(REASONS, start=1)}


def load_rgb(images: LabelledImages, index: int) -> Image.Image:
    """An image of a data set, decoded by Pillow; raises OSError where that fails."""
    return decode_rgb(images.read(index), images.name(index))


class ImageReader:
    """Reads images and tolerates a number of unreadable ones.

    The count is shared with the loader's workers. An image is counted once, however often it is
    read. A :class:`StorageError` is not tolerated.

    Args:
        images: the data set.
        max_unreadable: number of unreadable images that are tolerated.
        limit_name: name of this limit in error messages.
        indices: the images that may be read; None: all.
    """

    def __init__(
        self,
        images: LabelledImages,
        *,
        max_unreadable: int = 0,
        limit_name: str = "max_unreadable",
        indices: Sequence[int] | np.ndarray | None = None,
    ) -> None:
        self.images = images
        self.max_unreadable = max_unreadable
        self.limit_name = limit_name
        self.num_images = len(images) if indices is None else len(indices)
        # The number of a reason, or 0: setting it twice changes nothing, so workers need no lock.
        self._unreadable = torch.zeros(len(images), dtype=torch.uint8).share_memory_()

    @property
    def unreadable(self) -> list[int]:
        """Indices of the images that could not be read, in ascending order."""
        return self._unreadable.nonzero().flatten().tolist()

    def read(self, index: int, decode: Callable[[bytes | np.ndarray, str], T]) -> T | None:
        """An image, or None if it is unreadable.

        Args:
            index: of the image.
            decode: (content or pixels, name) -> the image; raises OSError where it cannot be
                decoded.

        Raises:
            ValueError: more images are unreadable than tolerated.
            StorageError: the storage cannot be read.
        """
        try:
            return decode(self.images.read(index), self.images.name(index))
        except StorageError:
            raise
        except OSError as error:
            reason = error.reason if isinstance(error, UnreadableImage) else NOT_OPENED
            self._unreadable[index] = _CODES[reason]
            self.check()
            return None

    def mark_reasons(self, reasons: Mapping[int, str]) -> None:
        """Counts images as unreadable that the check before a run, or another process, found.

        Args:
            reasons: index of the image -> one of `cwrgp.images.REASONS`.
        """
        for index, reason in reasons.items():
            self._unreadable[index] = _CODES[reason]

    def reasons(self) -> dict[int, str]:
        """Index of each unreadable image -> one of `cwrgp.images.REASONS`."""
        return {index: REASONS[int(self._unreadable[index]) - 1] for index in self.unreadable}

    def check(self) -> None:
        """Compares the number of unreadable images with the limit.

        Raises:
            ValueError: more are unreadable than tolerated, or all are.
        """
        if not self._unreadable.any():
            return
        unreadable = self.unreadable
        first = f"{self.images.name(unreadable[0])} ({self.reasons()[unreadable[0]]})"
        if len(unreadable) == self.num_images:
            raise ValueError(
                f"none of the {self.num_images} images can be read; the first is {first}"
            )
        if len(unreadable) > self.max_unreadable:
            raise ValueError(
                f"{len(unreadable)} of {self.num_images} images cannot be read, more than "
                f"{self.limit_name} {self.max_unreadable}; the first is {first}"
            )
