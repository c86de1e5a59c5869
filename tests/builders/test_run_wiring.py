"""What a run gives to its loop: the optimizer's values, and on two processes each its part."""

from __future__ import annotations

import pytest
import torch
from images import write_images
from repository import REPOSITORY
from torch import nn
from two_processes import in_two_processes

import cwrgp.commands.pretraining_run
from cwrgp.cli import load_config
from cwrgp.commands.pretraining_run import run_pretraining
from cwrgp.config import get_cfg
from cwrgp.models.batch_norm import CPUSyncBatchNorm

QUICK = str(REPOSITORY / "configs/quick/pretrain_cwrgp_r18.yaml")
SOLVER = ["SOLVER.WEIGHT_DECAY", 0.3, "SOLVER.MOMENTUM", 0.7, "SOLVER.TRUST_COEFFICIENT", 0.02]
SOLVER += ["SOLVER.DECAY_BIAS_AND_NORM", False]


def begin(rank: int, images: str, output: str, *opts: object) -> dict[str, object]:
    """A run up to its loop: the first batch, the kinds of BatchNorm, the optimizer's groups."""
    seen: dict[str, object] = {}

    def loop(method, optimizer, batches, **rest):
        norms = {
            type(m) for m in method.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)
        }
        seen.update(
            views=next(batches),
            synchronized=norms == {CPUSyncBatchNorm},
            groups=[{k: v for k, v in g.items() if k != "params"} for g in optimizer.param_groups],
            trust=getattr(optimizer, "trust", None),
        )

    cfg = get_cfg()
    pairs = ["DATA.ROOT", images, "OUTPUT_DIR", output, "DATA.NUM_WORKERS", 0, *opts]
    load_config(cfg, QUICK, [str(word) for word in pairs])
    original, cwrgp.commands.pretraining_run.train = cwrgp.commands.pretraining_run.train, loop
    try:
        run_pretraining(cfg)
    finally:
        cwrgp.commands.pretraining_run.train = original
    return seen


@pytest.fixture
def images(tmp_path):
    write_images(tmp_path / "images", 64)
    return str(tmp_path / "images")


@pytest.mark.parametrize("name", ["sgd", "lars", "larc"])
def test_the_optimizer_has_the_values_of_its_section(images, tmp_path, name):
    seen = begin(0, images, str(tmp_path / "run"), "SOLVER.OPTIMIZER", name, *SOLVER,
                 "SOLVER.EPOCHS", 4)  # fmt: skip
    decayed, rest = seen["groups"]
    assert (decayed["weight_decay"], rest["weight_decay"], decayed["momentum"]) == (0.3, 0, 0.7)
    assert seen["trust"] == (None if name == "sgd" else 0.02) and not seen["synchronized"]


@pytest.mark.dist
def test_two_processes_have_the_halves_of_the_batch_of_one(images, tmp_path):
    alone = begin(0, images, str(tmp_path / "one"), "SOLVER.EPOCHS", 4)
    both = in_two_processes(tmp_path, begin, images, str(tmp_path / "two"), "SOLVER.EPOCHS", 4)
    for view, *halves in zip(alone["views"], both[0]["views"], both[1]["views"], strict=True):
        assert len(view) == 64 and torch.equal(view, torch.cat(halves))
    assert both[0]["synchronized"] and both[1]["synchronized"]
