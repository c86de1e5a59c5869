"""SOLVER: number format, batch, schedule and optimizer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from fvcore.common.config import CfgNode
from torch import nn

from cwrgp.comm import get_world_size
from cwrgp.engine.optimizers import build_optimizer
from cwrgp.engine.plan import Plan
from cwrgp.engine.precision import Precision
from cwrgp.engine.schedule import build_schedule


def build_precision(cfg: CfgNode, device: torch.device, *, reason: str = "") -> Precision:
    """The number format of a process, for training and for probes.

    Args:
        cfg: ``SOLVER.AMP.DTYPE auto``, where nothing has resolved it, is bf16 where the device has
            instructions for it: nothing is measured for a probe.
        device: of the networks.
        reason: why it is this format, for the log.
    """
    amp = cfg.SOLVER.AMP
    if not amp.ENABLED:
        return Precision.choose(device, enabled=False, layout=amp.MEMORY_FORMAT)
    dtype = "bf16" if amp.DTYPE == "auto" else amp.DTYPE
    return Precision.choose(
        device, enabled=True, dtype=dtype, layout=amp.MEMORY_FORMAT, reason=reason
    )


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
        ValueError: the schedule does not fit into the run.
    """
    c = cfg.SOLVER
    scale = c.BATCH_SIZE / c.REFERENCE_BATCH_SIZE if c.REFERENCE_BATCH_SIZE else 1.0
    # A key is read only where it has an effect, so that the others can be named.
    options: dict[str, Any] = {}
    if c.SCHEDULE == "step":
        options = {"drop_epochs": tuple(c.DROP_EPOCHS), "gamma": c.GAMMA}
    else:
        options = {"final_ratio": c.FINAL_LR_RATIO}
    warmup = c.WARMUP_EPOCHS * plan.steps_per_epoch
    warmup_steps = round(warmup) if warmup > 0 else c.WARMUP_ITERS
    try:
        return build_schedule(
            c.SCHEDULE,
            c.BASE_LR * scale,
            total_steps=plan.total_steps,
            steps_per_epoch=plan.steps_per_epoch,
            warmup_steps=warmup_steps,
            **options,
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
    """The optimizer over a method's parameters."""
    c = cfg.SOLVER
    options: dict[str, Any] = {}  # as above
    if c.OPTIMIZER != "adam":
        options["momentum"] = c.MOMENTUM
    if c.OPTIMIZER in ("lars", "larc"):
        options["trust"] = c.TRUST_COEFFICIENT
    if c.OPTIMIZER != "lars":
        options["decay_bias_and_norm"] = c.DECAY_BIAS_AND_NORM
    return build_optimizer(
        c.OPTIMIZER, method, lr=learning_rate, weight_decay=c.WEIGHT_DECAY, **options
    )
