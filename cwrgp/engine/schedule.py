"""Learning rates as pure functions of the step: there is nothing to save and nothing to replay."""

from __future__ import annotations

from collections.abc import Callable

from fvcore.common.param_scheduler import (
    CosineParamScheduler,
    LinearParamScheduler,
    MultiStepParamScheduler,
    ParamScheduler,
)


def build_schedule(
    name: str,
    base_lr: float,
    *,
    total_steps: int,
    steps_per_epoch: int,
    warmup_steps: int = 0,
    drop_epochs: tuple[int, ...] = (50, 25),
    gamma: float = 0.2,
) -> Callable[[int], float]:
    """The learning rate at a step.

    During the warm-up the rate rises linearly, from base_lr / warmup_steps to base_lr.

    Args:
        name: "step" (times ``gamma`` at each of ``drop_epochs``) or "cosine" (to zero, a new value
            every epoch, as the paper's ImageNet recipe has it).
        base_lr: the rate after the warm-up.
        total_steps: steps in the run.
        steps_per_epoch: steps in an epoch.
        warmup_steps: steps of the warm-up; shorter than the run.
        drop_epochs: for "step", epochs before the end.
        gamma: for "step", the factor.

    Raises:
        ValueError: unknown name, a warm-up as long as the run, or a drop before the run begins.
    """
    epochs = total_steps // steps_per_epoch
    if not 0 <= warmup_steps < total_steps:
        raise ValueError(
            f"SOLVER.WARMUP_ITERS {warmup_steps} is not below the {total_steps} iterations of the "
            f"run; set it to {total_steps // 10}, or train for more epochs"
        )
    scheduler: ParamScheduler
    if name == "cosine":
        scheduler = CosineParamScheduler(1.0, 0.0)
    elif name == "step":
        early = [drop for drop in drop_epochs if not 0 < drop < epochs]
        if early:
            raise ValueError(
                f"SOLVER.DROP_EPOCHS {list(drop_epochs)} count from the end of the run, which has "
                f"{epochs} epochs only; choose smaller ones, such as [], or SOLVER.SCHEDULE cosine"
            )
        milestones = [epochs - drop for drop in sorted(drop_epochs, reverse=True)]
        values = [gamma**i for i in range(len(milestones) + 1)]
        scheduler = MultiStepParamScheduler(values, num_updates=epochs, milestones=milestones)
    else:
        raise ValueError(f"SOLVER.SCHEDULE {name!r} is unknown; choose 'step' or 'cosine'")
    warmup = LinearParamScheduler(0.0, 1.0)

    def learning_rate(step: int) -> float:
        if step < warmup_steps:
            return base_lr * warmup((step + 1) / warmup_steps)
        return base_lr * scheduler(step // steps_per_epoch / epochs)

    return learning_rate
