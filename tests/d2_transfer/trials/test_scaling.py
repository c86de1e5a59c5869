"""Another batch sees as many images, with a learning rate to match."""

from __future__ import annotations

import pytest
from detectron2.config import CfgNode
from repository import REPOSITORY

from d2_transfer.config import get_cfg
from d2_transfer.trials.prepare import deviations
from d2_transfer.trials.scaling import scale_batch, use_fraction

VOC = REPOSITORY / "configs/detection/pascal_voc_R_50_C4_24k.yaml"


def config() -> CfgNode:
    cfg = get_cfg()
    cfg.merge_from_file(str(VOC))
    return cfg


def test_half_a_batch_takes_twice_as_long() -> None:
    cfg, base = config(), config()
    scale_batch(cfg, 8)
    solver = cfg.SOLVER
    assert (solver.IMS_PER_BATCH, solver.BASE_LR, solver.MAX_ITER) == (8, 0.01, 48000)
    assert (solver.STEPS, solver.WARMUP_ITERS) == ((36000, 44000), 200)
    assert solver.MAX_ITER * solver.IMS_PER_BATCH == base.SOLVER.MAX_ITER * 16
    found = list(deviations(cfg, base))
    assert "SOLVER.IMS_PER_BATCH 8" in found and "SOLVER.BASE_LR 0.01" in found
    scale_batch(cfg, 16)
    assert cfg == base and not list(deviations(cfg, base))


def test_a_batch_that_would_be_scaled_twice_is_refused() -> None:
    cfg = config()
    with pytest.raises(ValueError, match="ims_per_batch 0 is below 1"):
        scale_batch(cfg, 0)
    cfg.SOLVER.REFERENCE_WORLD_SIZE = 8
    with pytest.raises(ValueError, match="REFERENCE_WORLD_SIZE 8 would scale twice; omit one of"):
        scale_batch(cfg, 8)


@pytest.mark.parametrize(("percent", "share"), [(100, 1), (50, 0.5), (10, 0.1), (1, 0.1)])
def test_a_fraction_has_its_share_of_the_iterations_but_a_tenth_at_least(
    percent: float, share: float
) -> None:
    cfg, whole = config(), config()
    use_fraction(cfg, percent, 7)
    assert round(24000 * share) == cfg.SOLVER.MAX_ITER
    assert tuple(round(step * share) for step in (18000, 22000)) == cfg.SOLVER.STEPS
    assert cfg.SOLVER.WARMUP_ITERS == whole.SOLVER.WARMUP_ITERS
    assert cfg.SOLVER.BASE_LR == whole.SOLVER.BASE_LR
    if percent == 100:
        assert cfg == whole
    else:
        names = ("voc_2007_trainval", "voc_2012_trainval")
        assert tuple(f"{name}_{percent}percent" for name in names) == cfg.DATASETS.TRAIN
        assert cfg.DATASETS.SUBSET_SEED == 7


def test_a_warmup_without_end_is_refused() -> None:
    cfg = config()
    cfg.SOLVER.WARMUP_ITERS = 2400
    with pytest.raises(ValueError, match="WARMUP_ITERS 2400 does not end within the 2400 iter"):
        use_fraction(cfg, 10, 0)


def test_periods_are_not_rounded_to_never() -> None:
    cfg = config()
    cfg.TEST.EVAL_PERIOD, cfg.SOLVER.CHECKPOINT_PERIOD = 0, 4
    use_fraction(cfg, 10, 0)
    assert (cfg.TEST.EVAL_PERIOD, cfg.SOLVER.CHECKPOINT_PERIOD) == (0, 1)


def test_too_few_iterations_for_the_steps_are_refused() -> None:
    cfg = config()
    cfg.SOLVER.MAX_ITER, cfg.SOLVER.STEPS, cfg.SOLVER.WARMUP_ITERS = 12, (8, 10), 0
    with pytest.raises(ValueError, match=r"STEPS \(8, 10\) of 12 iterations become \(1, 1\) of 1:"):
        use_fraction(cfg, 10, 0)
    cfg = config()
    cfg.SOLVER.STEPS = (18000, 30000)  # the second has no effect
    use_fraction(cfg, 10, 0)
    assert cfg.SOLVER.STEPS == (1800, 3000)
