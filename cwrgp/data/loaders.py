"""Batches as a pure function of the step: a run resumes anywhere, with any number of workers."""

from __future__ import annotations

import signal
import traceback
from collections.abc import Callable, Generator, Iterator
from functools import lru_cache

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from cwrgp.data.images import UNREADABLE, LabelledImages, StorageError
from cwrgp.data.views import Views
from cwrgp.seeding import derive_seed


class StepSampler(Sampler[list[tuple[int, int]]]):
    """The (epoch, index) pairs of this process's part of each global batch, from one step to
    another.

    Every epoch is a fresh permutation; what does not fill the last batch of an epoch is dropped.

    Args:
        dataset_size: number of images.
        batch_size: samples in a global batch, over all processes.
        start_step: the first step.
        total_steps: one past the last step.
        seed: the run's.
        rank: this process.
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
            generator = torch.Generator().manual_seed(derive_seed(self.seed, epoch))
            return torch.randperm(self.dataset_size, generator=generator)

        for step in self.steps:
            epoch, batch = divmod(step, steps_per_epoch)
            first = batch * self.batch_size + self.rank * local
            yield [(epoch, index) for index in order(epoch)[first : first + local].tolist()]


def leave_signals_to_the_run(worker: int) -> None:
    """For ``DataLoader(worker_init_fn=)``: a scheduler signals the whole group, and a worker that
    dies of it would take the run along.

    Python ends such a worker by SIGTERM when the program ends, and then waits for it: so a loader's
    iterator must be gone by then, also after an error.
    """
    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)


def iterate_views(
    views: Views,
    sampler: Sampler[list[tuple[int, int]]],
    *,
    num_workers: int,
    pin_memory: bool,
) -> Generator[list[Tensor], None, None]:
    """Yields lists of V uint8 batches (B, 3, H, W), where H and W may differ from view to view.

    The workers end with the generator: close it (``contextlib.closing``), since an error may come
    before its end.

    Raises:
        ValueError: too many unreadable images, in one line, whichever process met them.
        StorageError: what holds the images cannot be read, likewise.
    """
    loader = DataLoader(
        views,
        batch_sampler=sampler,
        num_workers=num_workers,
        pin_memory=pin_memory,
        prefetch_factor=4 if num_workers else None,
        worker_init_fn=leave_signals_to_the_run,
    )
    try:
        for batch in loader:
            views.unreadable.check(views.dataset)
            yield batch
    except (ValueError, StorageError) as error:
        # The error's frames hold the loader's processes, which would be waited for much later.
        traceback.clear_frames(error.__traceback__)
        if isinstance(error, StorageError):
            # A worker's message is its traceback, whose last line is the message.
            line = str(error).strip().splitlines()[-1]
            name = f"{StorageError.__module__}.{StorageError.__name__}: "
            raise StorageError(line.removeprefix(name)) from None
        views.unreadable.check(views.dataset)
        raise


class ProbeImages(Dataset):
    """(image, label) under a fixed transform, for evaluation; label -1 marks one that cannot be
    read.

    Args:
        dataset: the images.
        transform: PIL image -> uint8 (3, H, W).
        indices: which of them.
    """

    def __init__(
        self,
        dataset: LabelledImages,
        transform: Callable[[Image.Image], Tensor],
        indices: list[int],
    ) -> None:
        self.dataset = dataset
        self.transform = transform
        self.indices = indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, item: int) -> tuple[Tensor, int]:
        index = self.indices[item]
        try:
            return self.transform(self.dataset.load(index)), self.dataset.labels[index]
        except StorageError:
            raise
        except UNREADABLE:
            return self.transform(Image.new("RGB", (8, 8))), -1
