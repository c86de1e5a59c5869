"""Learning rates as pure functions of the step: there is nothing to save and nothing to replay."""

from __future__ import annotations

from collections.abc import Callable

from fvcore.common.param_scheduler import (
    CosineParamScheduler,
    LinearParamScheduler,
    MultiStepParamScheduler,
    ParamScheduler,
)

SCHEDULES = ("step", "cosine", "cosine_iter")


def build_schedule(
    name: str,
    base_lr: float,
    *,
    total_steps: int,
    steps_per_epoch: int,
    warmup_steps: int = 0,
    final_ratio: float = 0.0,
    drop_epochs: tuple[int, ...] = (50, 25),
    gamma: float = 0.2,
) -> Callable[[int], float]:
    """The learning rate at a step.

    During the warm-up the rate rises linearly, from base_lr / warmup_steps to base_lr.

    Args:
        name: "step" (times ``gamma`` at each of ``drop_epochs``), "cosine" (a new value every epoch
            of the run, as CW-RGP's ImageNet recipe has it) or "cosine_iter" (a new value every
            step, from the end of the warm-up on, as INTL's recipes have it).
        base_lr: the rate after the warm-up.
        total_steps: steps in the run.
        steps_per_epoch: steps in an epoch.
        warmup_steps: steps of the warm-up; shorter than the run.
        final_ratio: for the cosines, where they end, as a share of ``base_lr``.
        drop_epochs: for "step", epochs before the end.
        gamma: for "step", the factor.

    Raises:
        ValueError: unknown name, a warm-up as long as the run, or a drop before the run begins.
    """
    epochs = total_steps // steps_per_epoch
    if not 0 <= warmup_steps < total_steps:
        raise ValueError(
            f"the warm-up of {warmup_steps} iterations is not shorter than the run of {total_steps}"
        )
    scheduler: ParamScheduler
    if name in ("cosine", "cosine_iter"):
        scheduler = CosineParamScheduler(1.0, final_ratio)
    elif name == "step":
        early = [drop for drop in drop_epochs if not 0 < drop < epochs]
        if early:
            raise ValueError(
                f"drop_epochs {list(drop_epochs)} count from the end of the run, which has "
                f"{epochs} epochs only"
            )
        milestones = [epochs - drop for drop in sorted(set(drop_epochs), reverse=True)]
        values = [gamma**i for i in range(len(milestones) + 1)]
        scheduler = MultiStepParamScheduler(values, num_updates=epochs, milestones=milestones)
    else:
        raise ValueError(f"schedule {name!r} is unknown; choose one of {list(SCHEDULES)}")
    warmup = LinearParamScheduler(0.0, 1.0)

    def learning_rate(step: int) -> float:
        if step < warmup_steps:
            return base_lr * warmup((step + 1) / warmup_steps)
        if name == "cosine_iter":
            return base_lr * scheduler((step - warmup_steps) / (total_steps - warmup_steps))
        return base_lr * scheduler(step // steps_per_epoch / epochs)

    return learning_rate
