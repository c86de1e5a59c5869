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
from cwrgp.comm import gather, get_rank, get_world_size, wait_for_all
from cwrgp.engine.checkpoint import Checkpoints
from cwrgp.engine.finite import FiniteGuard, NonFinite, check_scale, check_weights
from cwrgp.engine.monitor import TrainingMonitor
from cwrgp.engine.precision import Precision
from cwrgp.engine.progress import MetricWriter
from cwrgp.engine.timer import StepTimer
from cwrgp.models.methods import Method, Output
from cwrgp.preemption import Preempted, StopRequest
from cwrgp.seeding import Stream, derive_seed

logger = logging.getLogger("cwrgp")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """When things happen, in steps; a period of 0 means never.

    Attributes:
        num_images: images in an epoch, including those that do not fill its last batch.
        total_steps: steps in the run.
        steps_per_epoch: steps in an epoch.
        log_period: between records of the losses; only then the loop waits for the GPU.
        checkpoint_period: between checkpoints.
        eval_period: between evaluations; the first is before the first step.
    """

    num_images: int
    total_steps: int
    steps_per_epoch: int
    log_period: int
    checkpoint_period: int
    eval_period: int

    def due(self, period: int, step: int) -> bool:
        """Whether what has this period happens after this step; after the last one it does."""
        return period > 0 and ((step + 1) % period == 0 or self.is_last(step))

    def is_last(self, step: int) -> bool:
        """Whether the run ends with this step."""
        return step + 1 == self.total_steps


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


def train(
    method: Method,
    optimizer: torch.optim.Optimizer,
    batches: Iterator[list[Tensor]],
    *,
    plan: Plan,
    step_config: StepConfig,
    start_step: int,
    checkpoints: Checkpoints | None,
    config: str,
    writer: MetricWriter | None,
    monitor: TrainingMonitor,
    evaluate: Callable[[], dict[str, float]],
    stop: StopRequest,
    clock: Callable[[], float] = time.perf_counter,
) -> None:
    """Trains from ``start_step`` to the end of the plan and leaves ``model_final.pth``.

    A step is a pure function of the weights, the optimizer's state, the seed and the step's
    number, so a run that was killed continues bit for bit on a CPU.

    Args:
        method: views -> :class:`Output`; not wrapped.
        optimizer: over the method's parameters.
        batches: V uint8 views for each step, from ``start_step`` on.
        plan: when things happen.
        step_config: how a step is computed.
        start_step: the first step.
        checkpoints: where to save; None on all but the main process.
        config: the configuration as YAML, for the checkpoint.
        writer: where to report; None on all but the main process.
        monitor: computes statistics of the embeddings and gives warnings and advice.
        evaluate: gives named numbers; called on every process.
        stop: asked after every step, and before the first.
        clock: gives seconds.

    Raises:
        FloatingPointError: a loss, gradient or weight is not finite, on every process; nothing of
            it is saved but ``diagnostic.pth``.
        Preempted: a signal asked the run to stop; a checkpoint of what was trained is saved.
    """
    device, scaler = step_config.precision.device, step_config.scaler
    model = _distributed(method, device)
    method.train()

    def report(step: int, when: str) -> None:
        values = evaluate()
        if writer is not None and values:
            writer.write(step, values, line=f"evaluation {when}")

    def state(step: int) -> dict[str, Any]:
        return pack(
            model=method.state_dict(),
            optimizer=optimizer.state_dict(),
            scaler=scaler.state_dict(),
            iteration=step,
            config=config,
            num_images=plan.num_images,
        )

    if start_step == 0 and plan.eval_period:
        report(0, "before training")
    if stop.agreed():
        raise Preempted(f"stop requested before iteration {start_step + 1}")
    guard, timer, mean_loss = FiniteGuard(device), StepTimer(clock), math.nan
    for step in range(start_step, plan.total_steps):
        with timer.waiting():
            views = next(batches)
        final, logged = plan.is_last(step), plan.due(plan.log_period, step)
        stopping = not final and stop.agreed()
        saved = final or stopping or plan.due(plan.checkpoint_period, step)
        try:
            torch.manual_seed(derive_seed(Stream.STEP, step_config.seed, step, get_rank()))
            method.set_progress(
                step=step, total_steps=plan.total_steps, steps_per_epoch=plan.steps_per_epoch
            )
            for group in optimizer.param_groups:
                group["lr"] = step_config.learning_rate(step)
            output, losses = _accumulated(model, views, optimizer, step_config)
            if step == 0:
                monitor.start(output.embeddings)
            # The scaler takes care of its own gradients.
            gradients = [] if scaler.is_enabled() else _gradients(optimizer)
            guard.add(step, torch.stack(list(losses.values())).sum(), gradients)
            if logged or saved:  # before the update
                check_scale(scaler, step)
                mean_loss = guard.mean_loss()
        except NonFinite as error:
            if checkpoints is not None:
                checkpoints.save_aside(state(step) | {"views": views}, "diagnostic")
            wait_for_all()  # the launcher stops the other processes once one has failed
            raise FloatingPointError(
                f"{error}; diagnostic.pth beside the checkpoints holds the state of iteration "
                f"{step}. {monitor.advice(method, output.embeddings)}"
            ) from error
        _update(method, optimizer, scaler, guard)
        timer.count()
        if saved:
            try:
                check_weights(method, step)
            except NonFinite as error:
                advice = monitor.advice(method, output.embeddings)
                raise FloatingPointError(f"{error} and are not saved. {advice}") from error
        if logged:
            _record(
                step,
                method,
                output.embeddings,
                losses,
                mean_loss,
                learning_rate=step_config.learning_rate(step),
                timer=timer,
                monitor=monitor,
                writer=writer,
            )
            guard.clear()
            timer.reset()
        if saved or plan.due(plan.eval_period, step):
            with _paused(timer, device):
                if plan.due(plan.eval_period, step):
                    report(step, f"after iteration {step + 1}")
                if saved and checkpoints is not None:
                    checkpoints.save(state(step), "model_final" if final else f"model_{step:07d}")
        if writer is not None:
            writer.step()
        if stopping:
            wait_for_all()  # as above: the checkpoint is complete first
            raise Preempted(f"stop requested: saved after iteration {step + 1}")


def _distributed(method: Method, device: torch.device) -> nn.Module:
    if get_world_size() == 1:
        return method
    return DistributedDataParallel(
        method,
        device_ids=[device.index] if device.type == "cuda" else None,
        broadcast_buffers=False,  # BatchNorm is synchronised, so buffers are equal anyway
    )


def _accumulated(
    model: nn.Module,
    views: list[Tensor],
    optimizer: torch.optim.Optimizer,
    step_config: StepConfig,
) -> tuple[Output, dict[str, Tensor]]:
    """Forward and backward over the parts of a batch: the last output, and the mean losses."""
    precision = step_config.precision
    optimizer.zero_grad()
    parts = list(zip(*(view.chunk(step_config.accumulate) for view in views), strict=True))
    sums: dict[str, Tensor] = {}
    for number, part in enumerate(parts, start=1):
        inputs = [
            step_config.normalize(view.to(precision.device, non_blocking=True)).to(
                memory_format=precision.memory_format
            )
            for view in part
        ]
        # The processes exchange gradients once, after the last part.
        waits = isinstance(model, DistributedDataParallel) and number < len(parts)
        with model.no_sync() if waits else contextlib.nullcontext():  # type: ignore[operator]
            with precision.autocast():
                output: Output = model(inputs)
            loss = torch.stack(list(output.losses.values())).sum() / len(parts)
            step_config.scaler.scale(loss).backward()
        for name, value in output.losses.items():
            sums[name] = sums.get(name, 0) + value.detach() / len(parts)
    return output, sums


def _record(
    step: int,
    method: Method,
    embeddings: Tensor,
    losses: dict[str, Tensor],
    mean_loss: float,
    *,
    learning_rate: float,
    timer: StepTimer,
    monitor: TrainingMonitor,
    writer: MetricWriter | None,
) -> None:
    """Reports a step and what the monitor finds; every process takes part."""
    parts = {name: _mean_over_processes(part) for name, part in losses.items()}
    if writer is None:
        return
    line, eta = writer.progress(step)
    values = {"total_loss": mean_loss, "lr": learning_rate, **parts}
    values |= monitor.statistics(method, embeddings)
    num_views, batch_size = embeddings.shape[:2]
    chance = method.chance_losses(batch_size * get_world_size(), num_views=num_views)
    monitor.learning(step, parts, values["embedding/effective_rank"], chance)
    values["time"], values["data_time"] = timer.means()
    monitor.timing(values["time"], values["data_time"])
    if embeddings.device.type == "cuda":
        values["max_mem_mb"] = torch.cuda.max_memory_allocated() / 2**20
    writer.write(step, {**values, "eta_seconds": eta}, line=line)


def _gradients(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    parameters = (p for group in optimizer.param_groups for p in group["params"])
    return [p.grad for p in parameters if p.grad is not None]


def _update(
    method: Method,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    guard: FiniteGuard,
) -> None:
    """The step of the optimizer and of momentum networks, unless a gradient is not finite."""
    fused = all(group.get("fused") for group in optimizer.param_groups)
    if fused and not guard.at_once and not scaler.is_enabled():
        optimizer.found_inf = guard.found_inf  # type: ignore[attr-defined]
    if not scaler.is_enabled():
        optimizer.step()
        method.update_target()
        return
    scale = scaler.get_scale()  # waits for the GPU
    scaler.step(optimizer)
    scaler.update()
    if scaler.get_scale() >= scale:  # it falls where the scaler has skipped the step
        method.update_target()


@contextlib.contextmanager
def _paused(timer: StepTimer, device: torch.device) -> Iterator[None]:
    """Excludes the block from the times of the steps, but not what the GPU still does for them."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    with timer.paused():
        yield


def _mean_over_processes(x: Tensor) -> float:
    return float(gather(x.detach().reshape(1)).mean())
