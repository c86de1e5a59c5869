"""Data loader workers and the shared memory through which they send batches.

A container has 64 MiB of /dev/shm unless it is started with more. When it is full, a worker fails
or dies, and torch raises a RuntimeError in the main process, which then waits for the other workers
when it exits. Here this ends a run at once, with one line that says what to do.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import signal
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing import active_children
from multiprocessing.queues import Queue
from pathlib import Path

from torch.utils.data import get_worker_info

from cwrgp.comm import get_world_size

SHARED_MEMORY = Path("/dev/shm")
_FULL = re.compile(r"unable to (allocate shared memory|write to file|resize file|mmap)")
_DEAD = re.compile(
    r"DataLoader worker \(pid(\(s\))? [\d, ]+\) (is )?(?P<how>[^.\n]*)|in pin memory thread"
)


class WorkerError(OSError):
    """Workers cannot share their batches, or one of them died."""


def check_shared_memory(num_bytes: int, processes: int | None = None) -> None:
    """Compares the free shared memory with what the workers of all local processes need.

    Args:
        num_bytes: of the batches in flight of one process.
        processes: number of processes on this machine; None: as torchrun says, or all of them.

    Raises:
        WorkerError: there is not enough.
    """
    if not SHARED_MEMORY.is_dir():  # not Linux
        return
    needed = num_bytes * (processes or int(os.environ.get("LOCAL_WORLD_SIZE", get_world_size())))
    free = shutil.disk_usage(SHARED_MEMORY).free
    if needed > free:
        raise WorkerError(
            f"the batches in flight need {needed / 2**20:.1f} MiB of shared memory, and "
            f"{SHARED_MEMORY} has {free / 2**20:.1f} MiB free"
        )


@contextmanager
def worker_errors_end_the_run(num_workers_key: str) -> Iterator[None]:
    """Turns the failure of a worker into an error of one line, and ends the other workers.

    It encloses a whole run, since torch raises the death of a worker wherever the main thread is.

    Args:
        num_workers_key: config key of the number of workers, for the message.

    Raises:
        WorkerError: a worker died, or the shared memory is too small.
    """
    before = set(active_children())
    try:
        yield
    except (RuntimeError, OSError, EOFError) as error:
        reason = worker_failure(error)
        if reason is None:
            raise
        with suppress(ValueError):  # not in the main thread
            # torch's handler would raise at the death of each of the other workers.
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        # The frames hold the loaders, which join their workers.
        traceback.clear_frames(error.__traceback__)
        for worker in set(active_children()) - before:
            worker.kill()
            worker.join()
        raise WorkerError(
            f"{reason}; start the container with more shared memory (docker run --shm-size 8g), "
            f"or set {num_workers_key} to a smaller number (0 needs no shared memory)"
        ) from None


def worker_failure(error: BaseException) -> str | None:
    """What happened to a worker, in one line; None for any other error."""
    if isinstance(error, WorkerError):
        return str(error)
    text = str(error)
    if _FULL.search(text):
        return f"a data loader worker ran out of shared memory ({_state()})"
    found = _DEAD.search(text)
    if found or _while_receiving(error):
        how = f" ({found['how']})" if found and found["how"] else ""
        return f"a data loader worker died{how}, perhaps for lack of memory; {_state()}"
    return None


def _while_receiving(error: BaseException) -> bool:
    """Whether the connection to a worker broke.

    torch says so of a worker that is dead. One that is about to be leaves a bare EOFError or
    ConnectionError.
    """
    names = (frame.f_code.co_name for frame, _ in traceback.walk_tb(error.__traceback__))
    return isinstance(error, EOFError | OSError) and "_try_get_data" in names


def exit_on_queue_errors() -> None:
    """Lets this worker end where it cannot send a batch; elsewhere it does nothing.

    A queue's thread would print a traceback and drop the batch, for which the main process would
    wait for ever.
    """
    if get_worker_info() is not None:
        Queue._on_queue_feeder_error = staticmethod(_exit)  # type: ignore[attr-defined]


def _exit(error: BaseException, item: object) -> None:
    full = _FULL.search(str(error)) or getattr(error, "errno", None) == errno.ENOSPC
    if not full:
        traceback.print_exception(error)
    os._exit(1)


def _state() -> str:
    if not SHARED_MEMORY.is_dir():
        return f"there is no {SHARED_MEMORY}"
    usage = shutil.disk_usage(SHARED_MEMORY)
    return f"{SHARED_MEMORY} has {usage.free / 2**20:.1f} of {usage.total / 2**20:.1f} MiB free"
