"""Two gloo processes for the tests of what is distributed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

WORLD = 2


def in_two_processes(folder: Path, work: Callable[..., Any], *args: Any) -> list[Any]:
    """What ``work(rank, *args)`` returns on both ranks: tensors and plain values.

    Args:
        folder: an empty one, for what the processes exchange.
        work: a function of a test module, so that the processes find it by name.
        args: picklable.
    """
    torch.multiprocessing.spawn(_start, (str(folder), work, args), nprocs=WORLD)
    return [torch.load(folder / f"rank-{rank}.pth") for rank in range(WORLD)]


def _start(rank: int, folder: str, work: Callable[..., Any], args: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    store = f"file://{folder}/store"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=WORLD)
    try:
        torch.save(work(rank, *args), f"{folder}/rank-{rank}.pth")
    finally:
        dist.destroy_process_group()
