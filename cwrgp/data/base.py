"""What a data set of images is."""

from __future__ import annotations

from typing import Protocol

from PIL import Image


class LabelledImages(Protocol):
    """Images by number, with an integer label each (-1: none)."""

    labels: list[int]

    def __len__(self) -> int: ...

    def load(self, index: int) -> Image.Image:
        """The image, RGB. Raises OSError where it cannot be read."""

    def name(self, index: int) -> str:
        """What to call the image in a message."""


class StorageError(OSError):
    """What holds the images cannot be read, which says nothing about an image.

    It stops a run, where an image that cannot be decoded is counted and replaced.
    """
