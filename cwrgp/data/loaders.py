"""Data loaders: processes that read and augment, and how they end."""

from __future__ import annotations

import signal
import traceback
from collections.abc import Generator, Iterator
from typing import Any, Protocol

from torch import Tensor
from torch.utils.data import DataLoader

from cwrgp.data.base import StorageError
from cwrgp.data.views import LabelledViews, ProbeImages, Views
from cwrgp.shared_memory import check_shared_memory, exit_on_queue_errors

PREFETCH_FACTOR = 4


class BatchSampler(Protocol):
    """The keys of the items of each batch."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[list[Any]]: ...


def prepare_worker(worker: int) -> None:
    """For ``DataLoader(worker_init_fn=)``: a worker ignores the signals that stop a run.

    A scheduler signals the whole process group, and a worker that dies of it would end the run
    before its checkpoint. Python ends such a worker by SIGTERM when the program ends, and then
    waits for it: so a loader's iterator must be gone by then, also after an error.
    """
    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    exit_on_queue_errors()


def iterate_views(
    views: Views | LabelledViews | ProbeImages,
    batch_sampler: BatchSampler,
    *,
    num_workers: int,
    pin_memory: bool,
) -> Generator[list[Tensor], None, None]:
    """Iterates over batches: a list of what the items of ``views`` consist of, stacked.

    The workers end with the generator. Close it (``contextlib.closing``), since an error may end
    the loop before it is exhausted.

    Args:
        views: the items.
        batch_sampler: the keys of the items of each batch; a sequence or a sampler.
        num_workers: processes that load; 0 loads in this process.
        pin_memory: whether batches are in page-locked memory.

    Raises:
        ValueError: too many unreadable images. The message is one line, also from a worker.
        StorageError: the storage cannot be read, likewise.
        WorkerError: before the first batch, the shared memory is too small for those in flight.
    """
    if num_workers:
        check_shared_memory(_bytes_in_flight(views, batch_sampler, num_workers))
    return _iterate(views, batch_sampler, num_workers, pin_memory)


def _bytes_in_flight(
    views: Views | LabelledViews | ProbeImages, batch_sampler: BatchSampler, num_workers: int
) -> int:
    """Of the batches that wait to be used and the one that is in use, from the first item."""
    keys = next(iter(batch_sampler), [])
    item = sum(part.nbytes for part in views[keys[0]] if isinstance(part, Tensor)) if keys else 0
    return item * len(keys) * min(num_workers * PREFETCH_FACTOR + 1, len(batch_sampler))


def _iterate(
    views: Views | LabelledViews | ProbeImages,
    batch_sampler: BatchSampler,
    num_workers: int,
    pin_memory: bool,
) -> Generator[list[Tensor], None, None]:
    loader = DataLoader(
        views,
        batch_sampler=batch_sampler,
        num_workers=num_workers,
        pin_memory=pin_memory,
        prefetch_factor=PREFETCH_FACTOR if num_workers else None,
        worker_init_fn=prepare_worker,
    )
    try:
        for batch in loader:
            views.reader.check()
            yield batch
    except (ValueError, StorageError) as error:
        # The error's frames hold the loader's processes, which would be waited for much later.
        traceback.clear_frames(error.__traceback__)
        if isinstance(error, StorageError):
            # A worker's message is its traceback, whose last line is the message.
            line = str(error).strip().splitlines()[-1]
            name = f"{StorageError.__module__}.{StorageError.__name__}: "
            raise StorageError(line.removeprefix(name)) from None
        views.reader.check()
        raise
