"""What a data set of images is, and how an image file is decoded."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import IO, Protocol

import numpy as np
import torch
from PIL import Image

from cwrgp.seeding import derive_seed

# What Pillow raises for a file that is not the image it claims to be (UnidentifiedImageError is an
# OSError).
UNREADABLE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)
IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".tif", ".tiff"})


class LabelledImages(Protocol):
    """Images by number, with an integer label each (-1: none)."""

    labels: list[int]

    def __len__(self) -> int: ...

    def load(self, index: int) -> Image.Image:
        """The image, RGB. Raises OSError where it cannot be read."""

    def name(self, index: int) -> str:
        """What to call the image in a message."""


class SomeImages:
    """Some images of a data set, numbered anew.

    Args:
        images: all of them.
        indices: of those that are here.
    """

    def __init__(self, images: LabelledImages, indices: Sequence[int]) -> None:
        self.images = images
        self.indices = list(indices)
        self.labels = [images.labels[i] for i in self.indices]

    def __len__(self) -> int:
        return len(self.indices)

    def load(self, index: int) -> Image.Image:
        return self.images.load(self.indices[index])

    def name(self, index: int) -> str:
        return self.images.name(self.indices[index])


def draw(size: int, limit: int, seed: int) -> list[int]:
    """The numbers of ``limit`` images of ``size``, in random order; of all, as they are, where the
    limit is 0 or not below the size.

    For one seed a smaller draw is part of a larger one.
    """
    if not 0 < limit < size:
        return list(range(size))
    generator = torch.Generator().manual_seed(derive_seed(seed, size))
    return torch.randperm(size, generator=generator)[:limit].tolist()


class StorageError(OSError):
    """What holds the images cannot be read, which says nothing about an image.

    It stops a run, where an image that cannot be decoded is counted and replaced.
    """


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
