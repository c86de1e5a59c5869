"""Data loaders: processes that read and augment, and how they end."""

from __future__ import annotations

import signal
import traceback
from collections.abc import Callable, Generator

from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from cwrgp.data.base import LabelledImages, StorageError
from cwrgp.data.views import Views
from cwrgp.images import UNREADABLE


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
