"""SOLVER: batch, schedule and optimizer."""

from __future__ import annotations

from collections.abc import Callable

from fvcore.common.config import CfgNode

from cwrgp.comm import get_world_size
from cwrgp.engine.loop import Plan
from cwrgp.engine.schedule import build_schedule


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
    """The learning rate of a step."""
    reference = cfg.SOLVER.REFERENCE_BATCH_SIZE
    scale = cfg.SOLVER.BATCH_SIZE / reference if reference else 1.0
    warmup = cfg.SOLVER.WARMUP_EPOCHS * plan.steps_per_epoch
    return build_schedule(
        cfg.SOLVER.SCHEDULE,
        cfg.SOLVER.BASE_LR * scale,
        total_steps=plan.total_steps,
        steps_per_epoch=plan.steps_per_epoch,
        warmup_steps=round(warmup) if warmup > 0 else cfg.SOLVER.WARMUP_ITERS,
        final_ratio=cfg.SOLVER.FINAL_LR_RATIO,
        drop_epochs=tuple(cfg.SOLVER.DROP_EPOCHS),
        gamma=cfg.SOLVER.GAMMA,
    )
