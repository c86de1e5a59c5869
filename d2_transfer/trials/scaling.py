"""Other numbers of iterations than the protocol's: for another batch, and for less data."""

from __future__ import annotations

from detectron2.config import CfgNode

from d2_transfer.data.subsets import subset_name

# A fraction of the data has this share of the iterations at least.
LEAST_SHARE = 0.1


def scale_iterations(cfg: CfgNode, factor: float) -> None:
    """Multiplies the numbers of iterations, in place, and rounds them to the nearest integer.

    They are those of the schedule, and between evaluations and checkpoints; 0 stays 0. The warm-up
    stays.

    Args:
        cfg: the merged config.
        factor: above 0.

    Raises:
        ValueError: the warm-up would not end, or steps of the schedule would coincide.
    """
    solver = cfg.SOLVER
    before = solver.MAX_ITER
    for section, key in (
        (solver, "MAX_ITER"),
        (solver, "CHECKPOINT_PERIOD"),
        (cfg.TEST, "EVAL_PERIOD"),
    ):
        section[key] = max(round(section[key] * factor), min(section[key], 1))
    steps = tuple(round(step * factor) for step in solver.STEPS)
    inside = [step for step in dict.fromkeys(steps) if 0 < step < solver.MAX_ITER]
    # Steps beyond the end, which have no effect, may stay there.
    if len(inside) < sum(step < before for step in solver.STEPS):
        raise ValueError(
            f"SOLVER.STEPS {solver.STEPS} of {before} iterations become {steps} of"
            f" {solver.MAX_ITER}: these are too few iterations"
        )
    solver.STEPS = steps
    if solver.WARMUP_ITERS >= solver.MAX_ITER:
        raise ValueError(
            f"SOLVER.WARMUP_ITERS {solver.WARMUP_ITERS} does not end within the"
            f" {solver.MAX_ITER} iterations that are left: set it lower, with --opts"
        )


def scale_batch(cfg: CfgNode, ims_per_batch: int) -> None:
    """Sets ``SOLVER.IMS_PER_BATCH`` and what goes with it by the linear rule, in place.

    The learning rate is proportional to the batch (Goyal et al., 2017). Numbers of iterations, the
    warm-up among them, are inversely proportional, so that as many images are seen.

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
    factor = solver.IMS_PER_BATCH / ims_per_batch
    solver.IMS_PER_BATCH = ims_per_batch
    solver.BASE_LR /= factor
    solver.WARMUP_ITERS = round(solver.WARMUP_ITERS * factor)
    scale_iterations(cfg, factor)


def use_fraction(cfg: CfgNode, percent: float, seed: int) -> None:
    """Trains on a seeded part of the images, in place.

    The numbers of iterations are multiplied by the share of the images, or by `LEAST_SHARE` if that
    is more.

    Args:
        cfg: the merged config.
        percent: of each training set, above 0 and at most 100.
        seed: of the choice; the parts of one seed are nested.

    Raises:
        ValueError: the warm-up would not end.
    """
    if percent == 100:
        return
    cfg.DATASETS.TRAIN = tuple(subset_name(name, percent) for name in cfg.DATASETS.TRAIN)
    cfg.DATASETS.SUBSET_SEED = seed
    scale_iterations(cfg, max(percent / 100, LEAST_SHARE))
