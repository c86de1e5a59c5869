"""One step: forward, backward and update, in full or in parts of a batch."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from cwrgp.comm import get_world_size
from cwrgp.engine.finite import FiniteGuard
from cwrgp.engine.precision import Precision
from cwrgp.models.methods import Method, Output
from cwrgp.profiling import part


@dataclass(frozen=True, kw_only=True)
class StepConfig:
    """How a step is computed.

    Attributes:
        learning_rate: of a step.
        normalize: uint8 images -> network input.
        precision: number format, and the device of the method.
        scaler: of the losses, for fp16.
        accumulate: parts into which a process cuts its batch.
        seed: the run's.
    """

    learning_rate: Callable[[int], float]
    normalize: Callable[[Tensor], Tensor]
    precision: Precision
    scaler: torch.amp.GradScaler
    accumulate: int
    seed: int


def distributed(method: Method, device: torch.device) -> nn.Module:
    """The method, with averaged gradients if there are several processes."""
    if get_world_size() == 1:
        return method
    return DistributedDataParallel(
        method,
        device_ids=[device.index] if device.type == "cuda" else None,
        broadcast_buffers=False,  # BatchNorm is synchronised, so buffers are equal anyway
    )


def forward_backward(
    model: nn.Module,
    views: list[Tensor],
    optimizer: torch.optim.Optimizer,
    step_config: StepConfig,
) -> tuple[Output, dict[str, Tensor]]:
    """Forward and backward over the parts of a batch: the last output, and the mean losses."""
    precision = step_config.precision
    optimizer.zero_grad()
    chunks = list(zip(*(view.chunk(step_config.accumulate) for view in views), strict=True))
    sums: dict[str, Tensor] = {}
    for number, chunk in enumerate(chunks, start=1):
        with part("data"):
            inputs = [
                step_config.normalize(view.to(precision.device, non_blocking=True)).to(
                    memory_format=precision.memory_format
                )
                for view in chunk
            ]
        # The processes exchange gradients once, after the last part of the batch.
        waits = isinstance(model, DistributedDataParallel) and number < len(chunks)
        with model.no_sync() if waits else contextlib.nullcontext():  # type: ignore[operator]
            with part("forward"), precision.autocast():
                output: Output = model(inputs)
            loss = torch.stack(list(output.losses.values())).sum() / len(chunks)
            with part("backward"):
                step_config.scaler.scale(loss).backward()
        for name, value in output.losses.items():
            sums[name] = sums.get(name, 0) + value.detach() / len(chunks)
    return output, sums


def gradients_to_check(
    optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler
) -> list[Tensor]:
    """The gradients of an optimizer's parameters; none where a loss scaler checks them."""
    if scaler.is_enabled():
        return []
    parameters = (p for group in optimizer.param_groups for p in group["params"])
    return [p.grad for p in parameters if p.grad is not None]


def update(
    method: Method,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    guard: FiniteGuard,
) -> None:
    """The step of the optimizer and of momentum networks, unless a gradient is not finite."""
    if not scaler.is_enabled():
        fused = all(group.get("fused") for group in optimizer.param_groups)
        if fused and not guard.at_once:
            optimizer.found_inf = guard.found_inf  # type: ignore[attr-defined]
        optimizer.step()
        method.update_target()
        return
    scale = scaler.get_scale()  # waits for the GPU
    scaler.step(optimizer)
    scaler.update()
    if scaler.get_scale() >= scale:  # it falls where the scaler has skipped the step
        method.update_target()
