"""The views of an image, and what becomes of images that cannot be read."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from cwrgp.data.base import LabelledImages, StorageError
from cwrgp.images import UNREADABLE
from cwrgp.seeding import derive_seed


class UnreadableImages:
    """Counts the images that cannot be read, across the workers of this process.

    Args:
        size: number of images.
        limit: how many may be skipped.
    """

    def __init__(self, size: int, limit: int) -> None:
        self.limit = limit
        # One flag for each image: idempotent, so that workers need no lock.
        self._flags = torch.zeros(size, dtype=torch.bool).share_memory_()

    def add(self, index: int) -> None:
        self._flags[index] = True

    def __len__(self) -> int:
        return int(self._flags.sum())

    def check(self, dataset: LabelledImages) -> None:
        """Raises ValueError when more than the limit were met, naming the first."""
        if not len(self):
            return
        first = dataset.name(int(self._flags.nonzero()[0]))
        if len(self) == len(dataset):
            raise ValueError(f"none of the {len(dataset)} images can be read; the first is {first}")
        if len(self) > self.limit:
            raise ValueError(
                f"{len(self)} of {len(dataset)} images cannot be read, more than "
                f"DATA.MAX_UNREADABLE {self.limit}; the first is {first}"
            )


class Views(Dataset):
    """V random views of an image, a pure function of (seed, epoch, index).

    An image that cannot be read is replaced by the next one that can, and counted.

    Args:
        dataset: the images.
        transforms: one for each of the V views: PIL image -> uint8 (3, H, W), where H and W may
            differ from view to view; they draw from torch's default generator.
        seed: the run's.
        max_unreadable: how many images may be skipped.
    """

    def __init__(
        self,
        dataset: LabelledImages,
        transforms: Sequence[Callable[[Image.Image], Tensor]],
        *,
        seed: int,
        max_unreadable: int = 0,
    ) -> None:
        self.dataset = dataset
        self.transforms = list(transforms)
        self.seed = seed
        self.unreadable = UnreadableImages(len(dataset), max_unreadable)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: tuple[int, int]) -> list[Tensor]:
        epoch, index = key
        image = self._load(index)
        with torch.random.fork_rng(devices=[]):
            # The CPU generator alone: torch.manual_seed would touch CUDA in every worker.
            torch.default_generator.manual_seed(derive_seed(self.seed, epoch, index))
            return [transform(image) for transform in self.transforms]

    def _load(self, index: int) -> Image.Image:
        for shift in range(len(self.dataset)):
            candidate = (index + shift) % len(self.dataset)
            try:
                return self.dataset.load(candidate)
            except StorageError:
                raise
            except UNREADABLE:
                self.unreadable.add(candidate)
                self.unreadable.check(self.dataset)
        raise AssertionError("the check above lets no data set pass of which nothing can be read")
