"""One process or many: start-up, rank and size, and BatchNorm over all processes."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from fvcore.nn.distributed import differentiable_all_gather
from fvcore.nn.distributed import differentiable_all_reduce as all_reduce
from torch import Tensor, nn

from cwrgp.engine.preemption import EXIT_CODE, Preempted, forwarded_to


def rank() -> int:
    """Number of this process, 0 where there is one only."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """Number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def local_device() -> torch.device:
    """This process's GPU where there is one, otherwise the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
    return torch.device("cpu")


def launch(main: Callable[..., Any], num_gpus: int | None, args: tuple[Any, ...]) -> Any:
    """Runs ``main(*args)`` in as many processes as asked for, or joins those that torchrun started.

    Args:
        main: the worker; picklable.
        num_gpus: processes on this machine, one for each GPU; None: one.
        args: its arguments.

    Raises:
        ValueError: more processes than GPUs.
        Preempted: the processes were told to stop.
    """
    if "LOCAL_RANK" in os.environ:  # torchrun
        return _worker(None, main, args)
    count = 1 if num_gpus is None else num_gpus
    available = torch.cuda.device_count()
    if count > max(available, 1) or count < 0:
        raise ValueError(
            f"--num-gpus {count}: this machine shows {available} GPU(s); several processes on the "
            f"CPU start with torchrun --nproc_per_node {count}"
        )
    if num_gpus == 0 and available:
        raise ValueError(
            "--num-gpus 0: set CUDA_VISIBLE_DEVICES= (to nothing) to run on this machine's CPU"
        )
    if count <= 1:
        return main(*args)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(count)}
    mistakes = torch.multiprocessing.get_context("spawn").SimpleQueue()
    work = (main, args, mistakes)
    context = torch.multiprocessing.spawn(_spawned, work, nprocs=count, join=False)
    try:
        with forwarded_to(context.pids()):
            while not context.join():
                pass
    except torch.multiprocessing.ProcessExitedException as error:
        if error.exit_code == EXIT_CODE:
            raise Preempted("the processes were told to stop") from None
        if mistakes.empty():
            raise
        raise ValueError(mistakes.get()) from None
    return None


def _spawned(
    local_rank: int, main: Callable[..., Any], args: tuple[Any, ...], mistakes: Any
) -> None:
    """Hands a user's mistake to the parent, where it is one line, not a traceback of processes."""
    try:
        _worker(local_rank, main, args)
    except Preempted as error:
        raise SystemExit(EXIT_CODE) from error
    except (ValueError, OSError, FloatingPointError) as error:
        mistakes.put(str(error))
        raise SystemExit(2) from error


def _worker(local_rank: int | None, main: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    if local_rank is not None:
        os.environ |= {"RANK": str(local_rank), "LOCAL_RANK": str(local_rank)}
    if torch.cuda.is_available():
        torch.cuda.set_device(local_device())
        dist.init_process_group("nccl", device_id=local_device())
    else:
        dist.init_process_group("gloo")
    try:
        return main(*args)
    finally:
        dist.destroy_process_group()


class CPUSyncBatchNorm(nn.modules.batchnorm._BatchNorm):
    """BatchNorm over the batches of all processes where torch's own, for GPUs only, cannot be used.

    Every process must hold as many samples as the others.
    """

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f"expected (B, C, ...), got shape {tuple(input.shape)}")

    def forward(self, input: Tensor) -> Tensor:
        """Normalises (B, C, ...) by its mean and biased variance over all but the channels."""
        self._check_input_dim(input)
        if not self.training or world_size() == 1:
            return super().forward(input)
        axes = [0, *range(2, input.dim())]
        shape = [1, -1] + [1] * (input.dim() - 2)
        x = input.float() if input.dtype in (torch.float16, torch.bfloat16) else input
        # Two passes: the mean of squares less the square of the mean loses digits in fp32.
        mean = all_reduce(x.mean(axes)) / world_size()
        centred = x - mean.view(shape)
        var = all_reduce(centred.square().mean(axes)) / world_size()
        count = world_size() * x.numel() // x.shape[1]
        assert self.running_mean is not None and self.running_var is not None
        assert self.num_batches_tracked is not None and self.momentum is not None
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(var * count / (count - 1), self.momentum)
        y = centred * (var + self.eps).rsqrt().view(shape)
        if self.affine:
            y = y * self.weight.view(shape) + self.bias.view(shape)
        return y.to(input.dtype)


def synchronize_batch_norm(module: nn.Module, device: torch.device) -> nn.Module:
    """Replaces every BatchNorm by one over all processes; one process keeps what it has.

    Args:
        module: changed in place where its children are replaced; names and values of the state
            stay.
        device: where it runs.
    """
    if world_size() == 1:
        return module
    if device.type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(module)
    for name, child in module.named_children():
        if isinstance(child, nn.modules.batchnorm._BatchNorm):
            assert child.running_mean is not None
            synced = CPUSyncBatchNorm(child.num_features, child.eps, child.momentum, child.affine)
            synced.to(child.running_mean.dtype).load_state_dict(child.state_dict())
            # The parameters themselves: a frozen network stays frozen.
            synced.weight, synced.bias = child.weight, child.bias
            setattr(module, name, synced)
        else:
            synchronize_batch_norm(child, device)
    return module


def gather(x: Tensor) -> Tensor:
    """Concatenates the tensors (n_r, ...) of all processes, in the order of their ranks, without
    gradient.

    Args:
        x: this process's; the processes may differ in n_r only.
    """
    if world_size() == 1:
        return x
    sizes: list[Any] = [None] * world_size()
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
    return torch.cat(differentiable_all_gather(x.contiguous()), dim)
