"""The training loop: steps, losses and a schedule; it knows neither the method nor the config."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from cwrgp.engine import distributed
from cwrgp.engine.checkpoint import Checkpoints
from cwrgp.engine.metrics import MetricWriter
from cwrgp.evaluation.spectrum import embedding_statistics
from cwrgp.models.methods import Output
from cwrgp.seeding import derive_seed

logger = logging.getLogger("cwrgp")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """When things happen, in steps; a period of 0 means never.

    Attributes:
        total_steps: steps in the run.
        steps_per_epoch: steps in an epoch.
        log_period: between records of the losses, the only moments at which the GPU is waited for.
        checkpoint_period: between checkpoints.
        eval_period: between evaluations; the first is before the first step.
    """

    total_steps: int
    steps_per_epoch: int
    log_period: int
    checkpoint_period: int
    eval_period: int


def train(
    method: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: Iterator[list[Tensor]],
    *,
    plan: Plan,
    learning_rate: Callable[[int], float],
    normalize: Callable[[Tensor], Tensor],
    device: torch.device,
    autocast: torch.autocast,
    memory_format: torch.memory_format,
    seed: int,
    start_step: int,
    checkpoints: Checkpoints | None,
    config: str,
    writer: MetricWriter | None,
    evaluate: Callable[[], dict[str, float]],
) -> None:
    """Trains from ``start_step`` to the end of the plan and leaves ``model_final.pth``.

    A step is a pure function of the weights, the optimizer's state, the seed and the step's
    number, so a run that was killed continues bit for bit on a CPU.

    Args:
        method: views -> :class:`Output`; not wrapped.
        optimizer: over the method's parameters.
        batches: V uint8 views a step, from ``start_step`` on.
        plan: when things happen.
        learning_rate: of a step.
        normalize: uint8 images -> network input.
        device: where the method is.
        autocast: context of the forward pass.
        memory_format: of the images.
        seed: the run's.
        start_step: the first step.
        checkpoints: where to save; None on all but the main process.
        config: the configuration as YAML, for the checkpoint.
        writer: where to report; None on all but the main process.
        evaluate: gives named numbers; called on every process.

    Raises:
        FloatingPointError: a loss is not finite.
    """
    model: nn.Module = method
    if distributed.world_size() > 1:
        model = DistributedDataParallel(
            method, device_ids=[device.index] if device.type == "cuda" else None
        )
    method.train()

    def due(period: int, step: int) -> bool:
        return period > 0 and ((step + 1) % period == 0 or step + 1 == plan.total_steps)

    def report(step: int, values: dict[str, float], when: str) -> None:
        if writer is not None and values:
            writer.write(step, values, line=f"evaluation {when}")

    if start_step == 0 and plan.eval_period:
        report(0, evaluate(), "before training")

    losses: list[Tensor] = []
    data_seconds, tick = 0.0, time.perf_counter()
    for step in range(start_step, plan.total_steps):
        waiting = time.perf_counter()
        views = next(batches)
        data_seconds += time.perf_counter() - waiting

        torch.manual_seed(derive_seed(seed, step, distributed.rank()))
        lr = learning_rate(step)
        for group in optimizer.param_groups:
            group["lr"] = lr
        inputs = [
            normalize(view.to(device, non_blocking=True)).to(memory_format=memory_format)
            for view in views
        ]
        with autocast:
            output: Output = model(inputs)
        loss = torch.stack(list(output.losses.values())).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())

        if due(plan.log_period, step):
            mean_loss = _finite_mean(losses, step)
            parts = {name: _mean_over_processes(part) for name, part in output.losses.items()}
            now = time.perf_counter()
            if writer is not None:
                line, eta = writer.progress(step)
                values = {"total_loss": mean_loss, "lr": lr, **parts}
                statistics = embedding_statistics(output.embeddings[0])
                values |= {name: float(value) for name, value in statistics.items()}
                values |= {
                    "time": (now - tick) / len(losses),
                    "data_time": data_seconds / len(losses),
                }
                if device.type == "cuda":
                    values["max_mem_mb"] = torch.cuda.max_memory_allocated() / 2**20
                writer.write(step, {**values, "eta_seconds": eta}, line=line)
            losses.clear()
            data_seconds, tick = 0.0, now
        if due(plan.eval_period, step):
            report(step, evaluate(), f"after iteration {step + 1}")
            tick = time.perf_counter()
        final = step + 1 == plan.total_steps
        if final or due(plan.checkpoint_period, step):
            _finite_mean([loss.detach()], step)
        if checkpoints is not None and (final or due(plan.checkpoint_period, step)):
            checkpoints.save(
                {
                    "model": method.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "iteration": step,
                    "config": config,
                    "torch_version": str(torch.__version__),
                },
                "model_final" if final else f"model_{step:07d}",
            )
            tick = time.perf_counter()
        if writer is not None:
            writer.step()


def _mean_over_processes(x: Tensor) -> float:
    return float(distributed.gather(x.detach().reshape(1)).mean())


def _finite_mean(losses: list[Tensor], step: int) -> float:
    mean = _mean_over_processes(torch.stack(losses).mean())
    if not math.isfinite(mean):
        raise FloatingPointError(
            f"the loss is {mean} between iterations {step - len(losses) + 1} and {step}; "
            "nothing was saved since. A larger METHOD.CWRGP.EPS (try 1e-4; needed where a "
            "sub-batch may hold an image twice) or a smaller SOLVER.BASE_LR helps"
        )
    return mean


def restore(
    state: dict[str, Any], method: nn.Module, optimizer: torch.optim.Optimizer, *, config: str
) -> int:
    """Loads a checkpoint into the method and its optimizer.

    Args:
        state: as :func:`train` saved it.
        method: receives the weights, all of them.
        optimizer: receives its state.
        config: of this run, to tell what changed.

    Returns:
        The step at which to go on.

    Raises:
        ValueError: the checkpoint is of another model.
    """
    try:
        method.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        old, start = str(state["config"]).splitlines(), int(state["iteration"]) + 1
    except (KeyError, RuntimeError, ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"the last checkpoint does not fit this configuration: {error}") from error
    new = config.splitlines()
    changed = sorted(set(new) - set(old))
    if changed:
        logger.warning(
            "resuming under a changed configuration: %s", "; ".join(map(str.strip, changed))
        )
    return start
