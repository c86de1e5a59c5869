"""The learning rate of each arm, chosen on training images."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from detectron2.config import CfgNode

from d2_transfer.data.subsets import subset_name
from d2_transfer.trials.plan import Plan
from d2_transfer.trials.result_files import read_result
from d2_transfer.trials.scaling import use_fraction

PERCENT = 10


def use_sweep(cfg: CfgNode, rate: float, seed: int) -> None:
    """Trains on the first tenth of the images and tests on the last one, in place.

    The last tenth is that of the first training set. The test set and ``DATASETS.VAL`` have no
    part in the choice.

    Args:
        cfg: the merged config.
        rate: ``SOLVER.BASE_LR``.
        seed: of the order of the images.

    Raises:
        ValueError: the warm-up would not end.
    """
    held_out = subset_name(cfg.DATASETS.TRAIN[0], 100, 100 - PERCENT)
    use_fraction(cfg, PERCENT, seed)
    cfg.DATASETS.TEST, cfg.DATASETS.VAL = (held_out,), ()
    cfg.SOLVER.BASE_LR = rate
    cfg.TEST.EVAL_PERIOD = cfg.TEST.PATIENCE = 0


def swept(output: Path, plan: Plan) -> dict[str, dict[float, float]]:
    """Box AP on the held-out images by arm and rate, of the cells of the sweep that are done.

    A training that diverged has nan.
    """
    found: dict[str, dict[float, float]] = {arm.name: {} for arm in plan.arms}
    for cell in plan.cells:
        result = None if cell.rate is None else read_result(output, cell)
        if cell.rate is not None and result is not None:
            scores = result["scores"]
            found[cell.arm][cell.rate] = scores["bbox"]["AP"] if scores else math.nan
    return found


def best_rate(aps: Mapping[float, float], default: float) -> float:
    """The rate with the highest AP.

    Args:
        aps: rate -> AP; nan: the training diverged.
        default: the protocol's rate. Of equal APs, the nearest to it in ratio counts.

    Raises:
        ValueError: the training diverged with all of them.
    """
    finite = {rate: ap for rate, ap in aps.items() if not math.isnan(ap)}
    if not finite:
        raise ValueError(
            f"lr-sweep {','.join(f'{rate:g}' for rate in aps)}: every training diverged; give"
            " smaller rates, with --restart"
        )
    return max(finite, key=lambda rate: (finite[rate], -abs(math.log(rate / default))))


def rate_of(output: Path, plan: Plan, arm: str, default: float) -> float:
    """The learning rate of an arm, by the sweep.

    Args:
        output: folder of the trials.
        plan: theirs, with rates.
        arm: its name.
        default: the protocol's rate.

    Raises:
        ValueError: a cell of the sweep is not done, or every training diverged.
    """
    aps = swept(output, plan)[arm]
    if missing := [rate for rate in plan.rates if rate not in aps]:
        raise ValueError(
            f"the learning rate of {arm} is not known yet: {len(missing)} of {len(plan.rates)}"
            " cells of its sweep are not done; run these first"
        )
    try:
        return best_rate(aps, default)
    except ValueError as error:
        raise ValueError(f"{arm}: {error}") from error
