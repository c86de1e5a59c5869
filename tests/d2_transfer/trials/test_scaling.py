"""Another batch sees as many images, with a learning rate to match."""

from __future__ import annotations

import pytest
from detectron2.config import CfgNode
from repository import REPOSITORY

from d2_transfer.config import get_cfg
from d2_transfer.trials.prepare import deviations
from d2_transfer.trials.scaling import scale_batch

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
