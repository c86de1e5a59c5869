"""SOLVER: number format, batch, schedule and optimizer."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from fvcore.common.config import CfgNode
from torch import nn

from cwrgp.comm import get_world_size
from cwrgp.engine.loop import Plan
from cwrgp.engine.optimizers import OPTIMIZERS, build_optimizer
from cwrgp.engine.precision import DTYPES, Precision
from cwrgp.engine.schedule import SCHEDULES, build_schedule


def build_precision(cfg: CfgNode, device: torch.device) -> Precision:
    """The number format of a process, for training and for probes.

    Raises:
        ValueError: unknown format.
    """
    _check_choice("SOLVER.AMP.DTYPE", cfg.SOLVER.AMP.DTYPE, DTYPES)
    return Precision.choose(device, enabled=cfg.SOLVER.AMP.ENABLED, dtype=cfg.SOLVER.AMP.DTYPE)


def local_batch_size(cfg: CfgNode) -> int:
    """Samples that one process computes at a time.

    Raises:
        ValueError: the batch does not divide among the processes, or their parts.
    """
    size, processes, parts = cfg.SOLVER.BATCH_SIZE, get_world_size(), cfg.SOLVER.ACCUMULATE
    if size % (processes * parts):
        raise ValueError(
            f"SOLVER.BATCH_SIZE {size} does not divide among {processes} processes"
            + (f" with SOLVER.ACCUMULATE {parts}" if parts > 1 else "")
            + f"; {max(1, size // (processes * parts)) * processes * parts} would"
        )
    return size // (processes * parts)


def build_plan(cfg: CfgNode, num_images: int) -> Plan:
    """When things happen, in steps."""
    steps_per_epoch = num_images // cfg.SOLVER.BATCH_SIZE
    return Plan(
        num_images=num_images,
        total_steps=cfg.SOLVER.EPOCHS * steps_per_epoch,
        steps_per_epoch=steps_per_epoch,
        log_period=cfg.LOG_PERIOD,
        checkpoint_period=cfg.CHECKPOINT_PERIOD * steps_per_epoch,
        eval_period=cfg.EVAL.PERIOD * steps_per_epoch,
    )


def build_learning_rate(cfg: CfgNode, plan: Plan) -> Callable[[int], float]:
    """The learning rate of a step.

    Raises:
        ValueError: unknown schedule, or one that does not fit into the run.
    """
    c = cfg.SOLVER
    _check_choice("SOLVER.SCHEDULE", c.SCHEDULE, SCHEDULES)
    scale = c.BATCH_SIZE / c.REFERENCE_BATCH_SIZE if c.REFERENCE_BATCH_SIZE else 1.0
    warmup = c.WARMUP_EPOCHS * plan.steps_per_epoch
    warmup_steps = round(warmup) if warmup > 0 else c.WARMUP_ITERS
    try:
        return build_schedule(
            c.SCHEDULE,
            c.BASE_LR * scale,
            total_steps=plan.total_steps,
            steps_per_epoch=plan.steps_per_epoch,
            warmup_steps=warmup_steps,
            final_ratio=c.FINAL_LR_RATIO,
            drop_epochs=tuple(c.DROP_EPOCHS),
            gamma=c.GAMMA,
        )
    except ValueError as error:
        fix = (
            "choose smaller SOLVER.DROP_EPOCHS, such as [], or SOLVER.SCHEDULE cosine"
            if warmup_steps < plan.total_steps
            else f"set SOLVER.WARMUP_ITERS to {plan.total_steps // 10} and WARMUP_EPOCHS to 0, or "
            "train for more epochs"
        )
        raise ValueError(f"{error}; {fix}") from error


def build_solver(cfg: CfgNode, method: nn.Module, learning_rate: float) -> torch.optim.Optimizer:
    """The optimizer over a method's parameters.

    Raises:
        ValueError: unknown name.
    """
    c = cfg.SOLVER
    _check_choice("SOLVER.OPTIMIZER", c.OPTIMIZER, OPTIMIZERS)
    return build_optimizer(
        c.OPTIMIZER,
        method,
        lr=learning_rate,
        weight_decay=c.WEIGHT_DECAY,
        momentum=c.MOMENTUM,
        decay_one_dimensional=c.DECAY_ONE_DIMENSIONAL,
        trust=c.TRUST,
    )


def _check_choice(key: str, value: str, choices: Iterable[str]) -> None:
    names = list(choices)
    if value not in names:
        raise ValueError(f"{key} {value!r} is unknown; choose one of {names}")
