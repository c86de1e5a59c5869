"""One process or many: rank, size, and gathering with and without gradient."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.nn.functional import all_gather


def get_rank() -> int:
    """Number of this process, 0 where there is one only."""
    return dist.get_rank() if dist.is_initialized() else 0


def get_world_size() -> int:
    """Number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def wait_for_all() -> None:
    """Returns once every process has called it."""
    if get_world_size() > 1:
        dist.barrier()


def gather(x: Tensor) -> Tensor:
    """Concatenates the tensors (n_r, ...) of all processes, in the order of their ranks, without
    gradient.

    Args:
        x: this process's; the processes may differ in n_r only.
    """
    if get_world_size() == 1:
        return x
    sizes: list[Any] = [None] * get_world_size()
    dist.all_gather_object(sizes, len(x))
    padded = x.new_zeros(max(sizes), *x.shape[1:])
    padded[: len(x)] = x
    parts = [torch.empty_like(padded) for _ in sizes]
    dist.all_gather(parts, padded)
    return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])


def gather_with_gradient(x: Tensor, *, dim: int = 0) -> Tensor:
    """Concatenates the tensors of all processes along ``dim``, in the order of their ranks.

    Its backward gives every process the **sum** over the processes of the gradients of its own
    part. Where each of W processes computes the same loss of the whole, that sum is W times the
    loss's gradient, and DistributedDataParallel's averaging over W processes takes the factor out
    again: the network's gradient is that of one process with the whole batch. No other scaling by
    the world size is needed, neither here nor in the loss.

    Args:
        x: this process's; of the same shape on all.
        dim: where the samples are.
    """
    if get_world_size() == 1:
        return x
    return torch.cat(all_gather(x), dim)
