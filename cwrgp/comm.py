"""One process or many: rank, size, and gathering with and without gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.nn.functional import all_gather

T = TypeVar("T")


def get_rank() -> int:
    """Number of this process; 0 if it is the only one."""
    return dist.get_rank() if dist.is_initialized() else 0


def get_world_size() -> int:
    """Number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def wait_for_all() -> None:
    """Returns once every process has called it."""
    if get_world_size() > 1:
        dist.barrier()


def from_main(compute: Callable[[], T]) -> T:
    """What the main process computes, on all processes.

    Args:
        compute: called on the main process only; the others wait. Its result must be picklable.
    """
    if get_world_size() == 1:
        return compute()
    values: list[Any] = [compute() if get_rank() == 0 else None]
    dist.broadcast_object_list(values)
    return values[0]


def gather_objects(mine: Any) -> list[Any]:
    """The objects of all processes, which pickle can hold, in rank order."""
    if get_world_size() == 1:
        return [mine]
    parts: list[Any] = [None] * get_world_size()
    dist.all_gather_object(parts, mine)
    return parts


def gather(x: Tensor) -> Tensor:
    """Concatenates the tensors (n_r, ...) of all processes in rank order, without gradient.

    Args:
        x: the tensor of this process; the processes may differ in n_r only.

    Returns:
        (sum of n_r, ...), the same on all processes.
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
    """Concatenates the tensors of all processes along ``dim``, in rank order.

    The backward pass gives each process the **sum** over the processes of the gradients of its own
    part. If each of W processes computes the same loss of the whole, that sum is W times the
    gradient of the loss, and the averaging of DistributedDataParallel divides by W again. The
    network then has the gradient of one process with the whole batch, without any other scaling by
    the number of processes.

    Args:
        x: the tensor of this process; of the same shape on all of them.
        dim: the dimension of the samples.

    Returns:
        The same tensor on all processes.
    """
    if get_world_size() == 1:
        return x
    return torch.cat(all_gather(x), dim)
