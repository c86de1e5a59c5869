"""Labelled batches for training a classifier: the same global batches for any number of processes.

An epoch is a permutation that is cut into batches; the last one, where it is smaller, counts too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import chain

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Sampler
from torchvision.transforms import v2

from cwrgp.data.augment import build_view_transform
from cwrgp.data.images import UNREADABLE, LabelledImages, StorageError
from cwrgp.data.views import Views
from cwrgp.seeding import derive_seed

NOTHING = -1  # the index of a sample without label, where a process has no part of a batch


def build_training_transform(image_size: int) -> v2.Compose:
    """What ImageNet classifiers are trained with: a random crop of 8 to 100 % of the area, and a
    flip. PIL image -> uint8 (3, image_size, image_size)."""
    return build_view_transform(
        image_size=image_size,
        crop_scale=(0.08, 1.0),
        interpolation="bilinear",
        crop_first=True,
        jitter=(0.0, 0.0, 0.0, 0.0),
        jitter_prob=0.0,
        grayscale_prob=0.0,
        blur_prob=0.0,
        solarize_prob=0.0,
        flip_prob=0.5,
    )


def build_test_transform(*, image_size: int, resize: int) -> v2.Compose:
    """What they are tested with: shorter side to ``resize``, bilinear, and the central square."""
    return v2.Compose(
        [
            v2.Resize(resize, interpolation=v2.InterpolationMode.BILINEAR, antialias=True),
            v2.CenterCrop(image_size),
            v2.PILToTensor(),
        ]
    )


def epoch_batches(size: int, batch_size: int, *, seed: int, epoch: int) -> list[Tensor]:
    """The batches of an epoch: int64 numbers below ``size``, each once."""
    generator = torch.Generator().manual_seed(derive_seed(seed, epoch))
    return list(torch.randperm(size, generator=generator).split(batch_size))


class EpochSampler(Sampler[list[tuple[int, int]]]):
    """This process's (epoch, index) pairs of every global batch of a training.

    Args:
        indices: of the images to train with.
        batch_size: samples in a global batch.
        epochs: how many.
        seed: of the permutations.
        rank: this process.
        world_size: number of processes.
        equal_parts: for networks with BatchNorm in training mode: every process gets equally many
            samples of a batch, two or more. The last batch of an epoch loses what is over, at most
            ``world_size - 1`` samples, or is left out.

    Raises:
        ValueError: ``equal_parts`` with a batch that does not divide, or with too few images.
    """

    def __init__(
        self,
        indices: Sequence[int],
        batch_size: int,
        epochs: int,
        *,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        equal_parts: bool = False,
    ) -> None:
        self.indices = list(indices)
        self.batch_size = batch_size
        self.epochs = epochs
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.equal_parts = equal_parts
        if equal_parts and (batch_size % world_size or batch_size < 2 * world_size):
            fitting = max(2, batch_size // world_size) * world_size
            raise ValueError(
                f"a batch of {batch_size} gives no two or more equal samples to each of "
                f"{world_size} processes; {fitting} would"
            )
        #: Samples of each global batch of an epoch.
        self.sizes = [len(batch) for batch in self._batches(0)]
        if not self.sizes:
            raise ValueError(
                f"{len(self.indices)} labelled images are too few for {world_size} processes with "
                "two or more each"
            )

    def __len__(self) -> int:
        return self.epochs * len(self.sizes)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for epoch in range(self.epochs):
            for batch in self._batches(epoch):
                part = batch.tensor_split(self.world_size)[self.rank].tolist()
                numbers = [self.indices[i] for i in part]
                yield [(epoch, number) for number in numbers or [NOTHING]]

    def _batches(self, epoch: int) -> list[Tensor]:
        size = len(self.indices)
        batches = epoch_batches(size, self.batch_size, seed=self.seed, epoch=epoch)
        if self.equal_parts:
            last = batches[-1]
            batches[-1] = last[: len(last) // self.world_size * self.world_size]
            if len(batches[-1]) < 2 * self.world_size:
                batches.pop()
        return batches


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
