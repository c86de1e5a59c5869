"""Two gloo processes for the tests of what is distributed."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

WORLD = 2

# New processes are forked from one that has only imported this, which saves them those seconds.
multiprocessing.set_forkserver_preload(["torchvision", "cwrgp.commands.pretrain"])


def in_two_processes(folder: Path, work: Callable[..., Any], *args: Any) -> list[Any]:
    """What ``work(rank, *args)`` returns on both ranks: tensors and plain values.

    Args:
        folder: an empty one, for what the processes exchange.
        work: a function of a test module, so that the processes find it by name.
        args: picklable.
    """
    given = (str(folder), dict(os.environ), work, args)
    torch.multiprocessing.start_processes(_start, given, nprocs=WORLD, start_method="forkserver")
    return [torch.load(folder / f"rank-{rank}.pth") for rank in range(WORLD)]


def _start(
    rank: int, folder: str, env: dict[str, str], work: Callable[..., Any], args: tuple[Any, ...]
) -> None:
    os.environ.clear()  # that of the first test
    os.environ.update(env)
    torch.set_num_threads(1)
    store = f"file://{folder}/store"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=WORLD)
    try:
        torch.save(work(rank, *args), f"{folder}/rank-{rank}.pth")
    finally:
        dist.destroy_process_group()
