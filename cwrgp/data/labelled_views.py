"""Augmented images with their labels, for training classifiers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import chain

import torch
from PIL import Image
from torch import Tensor

from cwrgp.data.base import LabelledImages, StorageError
from cwrgp.data.samplers import NOTHING
from cwrgp.data.views import Views
from cwrgp.images import UNREADABLE
from cwrgp.seeding import derive_seed


class LabelledViews(Views):
    """One view of an image and its label, a pure function of (seed, epoch, index).

    An image that cannot be read is replaced, label and all, by the next of ``indices`` that can,
    and counted.

    Args:
        dataset: the images.
        transform: PIL image -> uint8 (3, H, W); draws from torch's default generator.
        indices: of the images that may be used.
        seed: of the views.
        max_unreadable: how many images may be replaced.
    """

    def __init__(
        self,
        dataset: LabelledImages,
        transform: Callable[[Image.Image], Tensor],
        indices: Sequence[int],
        *,
        seed: int,
        max_unreadable: int = 0,
    ) -> None:
        super().__init__(dataset, [transform], seed=seed, max_unreadable=max_unreadable)
        self.indices = list(indices)

    def __getitem__(self, key: tuple[int, int]) -> list[Tensor]:
        """The view, uint8 (3, H, W), and its label, int64 (); -1 for the index :data:`NOTHING`."""
        epoch, index = key
        if index == NOTHING:
            image, label = Image.new("RGB", (8, 8)), -1
        else:
            image, label = self._load_labelled(index)
        with torch.random.fork_rng(devices=[]):
            # The CPU generator alone: torch.manual_seed would touch CUDA in every worker.
            torch.default_generator.manual_seed(derive_seed(self.seed, epoch, index + 1))
            return [self.transforms[0](image), torch.tensor(label)]

    def _load_labelled(self, index: int) -> tuple[Image.Image, int]:
        for candidate in chain([index], self._after(index)):
            try:
                return self.dataset.load(candidate), self.dataset.labels[candidate]
            except StorageError:
                raise
            except UNREADABLE:
                self.unreadable.add(candidate)
                self.unreadable.check(self.dataset)
        raise ValueError(f"none of the {len(self.indices)} images to train with can be read")

    def _after(self, index: int) -> Iterator[int]:
        place = self.indices.index(index)
        yield from self.indices[place + 1 :]
        yield from self.indices[:place]
