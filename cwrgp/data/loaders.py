"""Data loaders: processes that read and augment, and how they end."""

from __future__ import annotations

import signal
import traceback
from collections.abc import Generator, Iterable
from typing import Any

from torch import Tensor
from torch.utils.data import DataLoader

from cwrgp.data.base import StorageError
from cwrgp.data.views import LabelledViews, ProbeImages, Views

PREFETCH_FACTOR = 4


def leave_signals_to_the_run(worker: int) -> None:
    """For ``DataLoader(worker_init_fn=)``: a worker ignores the signals that stop a run.

    A scheduler signals the whole process group, and a worker that dies of it would end the run
    before its checkpoint. Python ends such a worker by SIGTERM when the program ends, and then
    waits for it: so a loader's iterator must be gone by then, also after an error.
    """
    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)


def iterate_views(
    views: Views | LabelledViews | ProbeImages,
    batch_sampler: Iterable[list[Any]],
    *,
    num_workers: int,
    pin_memory: bool,
) -> Generator[list[Tensor], None, None]:
    """Yields batches: a list of what the items of ``views`` consist of, stacked.

    The workers end with the generator. Close it (``contextlib.closing``), since an error may end
    the loop before it is exhausted.

    Args:
        views: the items.
        batch_sampler: the keys of the items of each batch.
        num_workers: processes that load; 0 loads in this process.
        pin_memory: whether batches are in page-locked memory.

    Raises:
        ValueError: too many unreadable images. The message is one line, also from a worker.
        StorageError: the storage cannot be read, likewise.
    """
    loader = DataLoader(
        views,
        batch_sampler=batch_sampler,
        num_workers=num_workers,
        pin_memory=pin_memory,
        prefetch_factor=PREFETCH_FACTOR if num_workers else None,
        worker_init_fn=leave_signals_to_the_run,
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
