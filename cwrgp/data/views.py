"""What a loader's worker gives: random views of an image, or the image as a probe sees it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import Protocol, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from cwrgp.data.base import LabelledImages
from cwrgp.data.reader import ImageReader
from cwrgp.data.samplers import NOTHING
from cwrgp.images import decode_rgb
from cwrgp.seeding import Stream, derive_seed, forked_generator

T = TypeVar("T")

Transform = Callable[[Image.Image], Tensor]


class ViewMaker(Protocol):
    """Makes the views of an image."""

    def __call__(
        self, content: bytes | np.ndarray, name: str, *, epoch: int, index: int
    ) -> list[Tensor]:
        """V tensors, uint8 (3, H, W), a pure function of content, epoch and index.

        Args:
            content: of the file, or RGB pixels, uint8 (H, W, 3).
            name: of the image, for error messages.
            epoch: of the run.
            index: of the image.

        Raises:
            UnreadableImage: the content cannot be decoded.
        """


class Views(Dataset):
    """V random views of an image, a pure function of (seed, epoch, index).

    An unreadable image is replaced by the next readable one.

    Args:
        images: the data set.
        make_views: makes them.
        max_unreadable: number of unreadable images that are tolerated.
        limit_name: name of this limit in error messages.
    """

    def __init__(
        self,
        images: LabelledImages,
        make_views: ViewMaker,
        *,
        max_unreadable: int = 0,
        limit_name: str = "max_unreadable",
    ) -> None:
        self.images = images
        self.make_views = make_views
        self.reader = ImageReader(images, max_unreadable=max_unreadable, limit_name=limit_name)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, key: tuple[int, int]) -> list[Tensor]:
        """The views of an (epoch, index) pair: V tensors, uint8 (3, H, W)."""
        epoch, index = key
        size = len(self.images)
        others = ((index + shift) % size for shift in range(size))
        make_views = functools.partial(self.make_views, epoch=epoch, index=index)
        return _first_readable(self.reader, others, make_views)[1]


class LabelledViews(Dataset):
    """A random view of an image and its label, a pure function of (seed, epoch, index).

    An unreadable image is replaced, label included, by the next readable one of ``indices``.

    Args:
        images: the data set.
        transform: PIL image -> uint8 (3, H, W); draws from torch's default generator.
        indices: the images that may be used.
        seed: of the views.
        max_unreadable: number of unreadable images that are tolerated.
        limit_name: name of this limit in error messages.
    """

    def __init__(
        self,
        images: LabelledImages,
        transform: Transform,
        indices: Sequence[int] | np.ndarray,
        *,
        seed: int,
        max_unreadable: int = 0,
        limit_name: str = "max_unreadable",
    ) -> None:
        self.images = images
        self.transform = transform
        self.indices = np.asarray(indices, dtype=np.int64)
        self.seed = seed
        self.reader = ImageReader(
            images, max_unreadable=max_unreadable, limit_name=limit_name, indices=self.indices
        )

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, key: tuple[int, int]) -> list[Tensor]:
        """The view, uint8 (3, H, W), and its label, int64 (); -1 for the index :data:`NOTHING`."""
        epoch, index = key
        image, label = Image.new("RGB", (8, 8)), -1
        if index == NOTHING:
            index = 0  # the view does not matter
        else:
            used, image = _first_readable(
                self.reader, chain([index], self._after(index)), decode_rgb
            )
            label = int(self.images.labels[used])
        with forked_generator(derive_seed(Stream.PROBE_VIEW, self.seed, epoch, index)):
            return [self.transform(image), torch.tensor(label)]

    def _after(self, index: int) -> Iterator[int]:
        position = int(np.flatnonzero(self.indices == index)[0])
        yield from np.roll(self.indices, -position)[1:].tolist()


class ProbeImages(Dataset):
    """An image under a fixed transform and its label; label -1 marks an unreadable image.

    Args:
        images: the data set.
        transform: PIL image -> uint8 (3, H, W).
        max_unreadable: number of unreadable images that are tolerated.
        limit_name: name of this limit in error messages.
    """

    def __init__(
        self,
        images: LabelledImages,
        transform: Transform,
        *,
        max_unreadable: int = 0,
        limit_name: str = "max_unreadable",
    ) -> None:
        self.images = images
        self.transform = transform
        self.reader = ImageReader(images, max_unreadable=max_unreadable, limit_name=limit_name)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """The image, uint8 (3, H, W), and its label."""
        image = self.reader.read(index, decode_rgb)
        if image is None:
            return self.transform(Image.new("RGB", (8, 8))), -1
        return self.transform(image), int(self.images.labels[index])


def _first_readable(
    reader: ImageReader,
    indices: Iterable[int],
    decode: Callable[[bytes | np.ndarray, str], T],
) -> tuple[int, T]:
    """The first readable image of ``indices``, after its index."""
    for index in indices:
        image = reader.read(index, decode)
        if image is not None:
            return index, image
    raise AssertionError("the reader raises where no image is readable")
