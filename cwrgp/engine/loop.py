"""The training loop: steps, losses and a schedule; it knows neither the method nor the config."""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from cwrgp.checkpoints.own import pack
from cwrgp.comm import gather, get_rank, get_world_size
from cwrgp.engine.checkpoint import Checkpoints
from cwrgp.engine.metrics import MetricWriter
from cwrgp.engine.monitor import NonFiniteLoss, Watch
from cwrgp.models.methods import Method, Output
from cwrgp.preemption import Preempted, StopRequest
from cwrgp.seeding import Stream, derive_seed

logger = logging.getLogger("cwrgp")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """When things happen, in steps; a period of 0 means never.

    Attributes:
        num_images: images in an epoch, with those that do not fill its last batch.
        total_steps: steps in the run.
        steps_per_epoch: steps in an epoch.
        log_period: between records of the losses, the only moments at which the GPU is waited for.
        checkpoint_period: between checkpoints.
        eval_period: between evaluations; the first is before the first step.
    """

    num_images: int
    total_steps: int
    steps_per_epoch: int
    log_period: int
    checkpoint_period: int
    eval_period: int


@dataclass(frozen=True, kw_only=True)
class Step:
    """How a step is computed.

    Attributes:
        learning_rate: of a step.
        normalize: uint8 images -> network input.
        device: where the method is.
        autocast: context of the forward pass.
        scaler: of the losses, for fp16.
        memory_format: of the images.
        accumulate: parts into which a process cuts its batch.
        seed: the run's.
    """

    learning_rate: Callable[[int], float]
    normalize: Callable[[Tensor], Tensor]
    device: torch.device
    autocast: torch.autocast
    scaler: torch.amp.GradScaler
    memory_format: torch.memory_format
    accumulate: int
    seed: int


def train(
    method: Method,
    optimizer: torch.optim.Optimizer,
    batches: Iterator[list[Tensor]],
    *,
    plan: Plan,
    how: Step,
    start_step: int,
    checkpoints: Checkpoints | None,
    config: str,
    writer: MetricWriter | None,
    evaluate: Callable[[], dict[str, float]],
    num_workers: int,
    stop: StopRequest,
) -> None:
    """Trains from ``start_step`` to the end of the plan and leaves ``model_final.pth``.

    A step is a pure function of the weights, the optimizer's state, the seed and the step's
    number, so a run that was killed continues bit for bit on a CPU.

    Args:
        method: views -> :class:`Output`; not wrapped.
        optimizer: over the method's parameters.
        batches: V uint8 views a step, from ``start_step`` on.
        plan: when things happen.
        how: what a step is.
        start_step: the first step.
        checkpoints: where to save; None on all but the main process.
        config: the configuration as YAML, for the checkpoint.
        writer: where to report; None on all but the main process.
        evaluate: gives named numbers; called on every process.
        num_workers: that load images, for the advice when they are too few.
        stop: asked after every step, and before the first.

    Raises:
        FloatingPointError: a loss is not finite; ``diagnostic.pth`` is left behind.
        Preempted: a signal asked the run to stop; a checkpoint of what was trained is left behind.
    """
    model: nn.Module = method
    if get_world_size() > 1:
        model = DistributedDataParallel(
            method,
            device_ids=[how.device.index] if how.device.type == "cuda" else None,
            broadcast_buffers=False,  # BatchNorm is over all processes: they are equal anyway
        )
    method.train()
    watch = Watch()

    def due(period: int, step: int) -> bool:
        return period > 0 and ((step + 1) % period == 0 or step + 1 == plan.total_steps)

    def report(step: int, values: dict[str, float], when: str) -> None:
        if writer is not None and values:
            writer.write(step, values, line=f"evaluation {when}")

    def state(step: int) -> dict[str, Any]:
        return pack(
            model=method.state_dict(),
            optimizer=optimizer.state_dict(),
            scaler=how.scaler.state_dict(),
            iteration=step,
            config=config,
            num_images=plan.num_images,
        )

    if start_step == 0 and plan.eval_period:
        report(0, evaluate(), "before training")
    if stop.agreed():
        raise Preempted(f"told to stop before iteration {start_step + 1}")
    data_seconds, tick = 0.0, time.perf_counter()
    for step in range(start_step, plan.total_steps):
        waiting = time.perf_counter()
        views = next(batches)
        data_seconds += time.perf_counter() - waiting
        logged, saved = due(plan.log_period, step), due(plan.checkpoint_period, step)
        final = step + 1 == plan.total_steps
        leave = not final and stop.agreed()
        try:
            torch.manual_seed(derive_seed(Stream.STEP, how.seed, step, get_rank()))
            method.set_progress(
                step=step, total_steps=plan.total_steps, steps_per_epoch=plan.steps_per_epoch
            )
            for group in optimizer.param_groups:
                group["lr"] = how.learning_rate(step)
            output, losses = _accumulated(model, views, optimizer, how)
            watch.add(step, torch.stack(list(losses.values())).sum())
            # Before the weights are changed by it.
            mean_loss = watch.mean() if logged or saved or final or leave else math.nan
        except NonFiniteLoss as error:
            if checkpoints is not None:
                checkpoints.save_aside(state(step) | {"views": views}, "diagnostic")
            raise FloatingPointError(
                f"{error}; diagnostic.pth in OUTPUT_DIR holds the state of iteration {step}. "
                f"{watch.advice(method, output.embeddings)}"
            ) from error
        how.scaler.step(optimizer)
        how.scaler.update()
        method.update_target()
        if logged:
            parts = {name: _mean_over_processes(part) for name, part in losses.items()}
            now = time.perf_counter()
            if writer is not None:
                line, eta = writer.progress(step)
                values = {"total_loss": mean_loss, "lr": how.learning_rate(step), **parts}
                values |= watch.statistics(method, output.embeddings)
                values["time"] = (now - tick) / len(watch)
                values["data_time"] = data_seconds / len(watch)
                watch.timing(values["time"], values["data_time"], num_workers)
                if how.device.type == "cuda":
                    values["max_mem_mb"] = torch.cuda.max_memory_allocated() / 2**20
                writer.write(step, {**values, "eta_seconds": eta}, line=line)
            watch.clear()
            data_seconds, tick = 0.0, now
        if due(plan.eval_period, step):
            report(step, evaluate(), f"after iteration {step + 1}")
            tick = time.perf_counter()
        if checkpoints is not None and (final or saved or leave):
            checkpoints.save(state(step), "model_final" if final else f"model_{step:07d}")
            tick = time.perf_counter()
        if writer is not None:
            writer.step()
        if leave:
            raise Preempted(f"told to stop: saved after iteration {step + 1}")


def _accumulated(
    model: nn.Module, views: list[Tensor], optimizer: torch.optim.Optimizer, how: Step
) -> tuple[Output, dict[str, Tensor]]:
    """Forward and backward over the parts of a batch: the last output, and the mean losses."""
    optimizer.zero_grad()
    parts = list(zip(*(view.chunk(how.accumulate) for view in views), strict=True))
    sums: dict[str, Tensor] = {}
    for number, part in enumerate(parts, start=1):
        inputs = [
            how.normalize(view.to(how.device, non_blocking=True)).to(
                memory_format=how.memory_format
            )
            for view in part
        ]
        # The processes exchange gradients once, after the last part.
        waits = isinstance(model, DistributedDataParallel) and number < len(parts)
        with model.no_sync() if waits else contextlib.nullcontext():  # type: ignore[operator]
            with how.autocast:
                output: Output = model(inputs)
            loss = torch.stack(list(output.losses.values())).sum() / len(parts)
            how.scaler.scale(loss).backward()
        for name, value in output.losses.items():
            sums[name] = sums.get(name, 0) + value.detach() / len(parts)
    return output, sums


def _mean_over_processes(x: Tensor) -> float:
    return float(gather(x.detach().reshape(1)).mean())
