"""Another batch under the linear rule (Goyal et al., 2017)."""

from __future__ import annotations

from detectron2.config import CfgNode


def scale_batch(cfg: CfgNode, ims_per_batch: int) -> None:
    """Sets ``SOLVER.IMS_PER_BATCH`` and what goes with it, in place.

    The learning rate is proportional to the batch. Numbers of iterations, of the schedule and
    between evaluations and checkpoints, are inversely proportional, so that as many images are
    seen; each is rounded to the nearest integer.

    Args:
        cfg: the merged config.
        ims_per_batch: images of a batch, of all processes together.

    Raises:
        ValueError: the batch is below 1, or ``SOLVER.REFERENCE_WORLD_SIZE`` is set.
    """
    solver = cfg.SOLVER
    if ims_per_batch < 1:
        raise ValueError(f"ims_per_batch {ims_per_batch} is below 1")
    if solver.REFERENCE_WORLD_SIZE:
        raise ValueError(
            f"ims_per_batch {ims_per_batch} together with SOLVER.REFERENCE_WORLD_SIZE"
            f" {solver.REFERENCE_WORLD_SIZE} would scale twice; omit one of them"
        )
    factor = ims_per_batch / solver.IMS_PER_BATCH
    solver.IMS_PER_BATCH = ims_per_batch
    solver.BASE_LR *= factor
    for section, key in (
        (solver, "MAX_ITER"),
        (solver, "WARMUP_ITERS"),
        (solver, "CHECKPOINT_PERIOD"),
        (cfg.TEST, "EVAL_PERIOD"),
    ):
        section[key] = round(section[key] / factor)
    solver.STEPS = tuple(round(step / factor) for step in solver.STEPS)
