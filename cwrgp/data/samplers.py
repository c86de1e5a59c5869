"""Batches as a pure function of the step or the epoch, so that a run can resume at any step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Sampler

from cwrgp.seeding import Stream, derive_seed


class StepSampler(Sampler[list[tuple[int, int]]]):
    """The (epoch, index) pairs of this process's part of each global batch of a range of steps.

    Every epoch is a new permutation. The last batch of an epoch is dropped if it is not full.

    Args:
        dataset_size: number of images.
        batch_size: samples in a global batch, over all processes.
        start_step: the first step.
        total_steps: one past the last step.
        seed: the run's.
        rank: of this process.
        world_size: number of processes; divides ``batch_size``.
    """

    def __init__(
        self,
        dataset_size: int,
        batch_size: int,
        *,
        start_step: int,
        total_steps: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        assert batch_size % world_size == 0 and batch_size <= dataset_size
        self.dataset_size = dataset_size
        self.batch_size = batch_size
        self.steps = range(start_step, total_steps)
        self.seed = seed
        self.rank = rank
        self.world_size = world_size

    def __len__(self) -> int:
        return len(self.steps)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        local = self.batch_size // self.world_size
        steps_per_epoch = self.dataset_size // self.batch_size

        @lru_cache(maxsize=1)
        def order(epoch: int) -> Tensor:
            generator = torch.Generator()
            generator.manual_seed(derive_seed(Stream.ORDER, self.seed, epoch))
            return torch.randperm(self.dataset_size, generator=generator)

        for step in self.steps:
            epoch, batch = divmod(step, steps_per_epoch)
            first = batch * self.batch_size + self.rank * local
            yield [(epoch, index) for index in order(epoch)[first : first + local].tolist()]


NOTHING = -1  # index of the placeholder sample of a process that has no part of a batch


def epoch_batches(size: int, batch_size: int, *, seed: int, epoch: int) -> list[Tensor]:
    """The batches of an epoch of a probe: int64 numbers below ``size``, permuted."""
    generator = torch.Generator().manual_seed(derive_seed(Stream.PROBE_ORDER, seed, epoch))
    return list(torch.randperm(size, generator=generator).split(batch_size))


class EpochSampler(Sampler[list[tuple[int, int]]]):
    """The (epoch, index) pairs of this process's part of each global batch of a training.

    Args:
        indices: of the images to train with.
        batch_size: samples in a global batch.
        epochs: number of epochs.
        seed: of the permutations.
        rank: of this process.
        world_size: number of processes.
        equal_parts: for networks with BatchNorm in training mode: every process gets the same
            number of samples of a batch, at least two. The last batch of an epoch loses the
            remainder, at most ``world_size - 1`` samples, or is dropped.

    Raises:
        ValueError: ``equal_parts`` with a batch that does not divide, or with too few images.
    """

    def __init__(
        self,
        indices: Sequence[int] | np.ndarray,
        batch_size: int,
        epochs: int,
        *,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        equal_parts: bool = False,
    ) -> None:
        self.indices = np.asarray(indices, dtype=np.int64)
        self.batch_size = batch_size
        self.epochs = epochs
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.equal_parts = equal_parts
        if equal_parts and (batch_size % world_size or batch_size < 2 * world_size):
            fitting = max(2, batch_size // world_size) * world_size
            raise ValueError(
                f"a batch of {batch_size} does not give each of {world_size} processes the same "
                f"number of samples, at least two; {fitting} would"
            )
        #: Samples of each global batch of an epoch.
        self.sizes = [len(batch) for batch in self._batches(0)]
        if not self.sizes:
            raise ValueError(
                f"{len(self.indices)} labelled images are too few for {world_size} processes with "
                "at least two each"
            )

    def __len__(self) -> int:
        return self.epochs * len(self.sizes)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for epoch in range(self.epochs):
            for batch in self._batches(epoch):
                part = self.indices[batch.tensor_split(self.world_size)[self.rank].numpy()].tolist()
                yield [(epoch, index) for index in part or [NOTHING]]

    def _batches(self, epoch: int) -> list[Tensor]:
        size = len(self.indices)
        batches = epoch_batches(size, self.batch_size, seed=self.seed, epoch=epoch)
        if self.equal_parts:
            last = batches[-1]
            batches[-1] = last[: len(last) // self.world_size * self.world_size]
            if len(batches[-1]) < 2 * self.world_size:
                batches.pop()
        return batches
