"""Every pretraining YAML builds, has the published values, and starts with its command."""

from __future__ import annotations

import re

import pytest
import torch
from repository import REPOSITORY

from cwrgp import cli
from cwrgp.build import build_learning_rate, build_method, build_plan
from cwrgp.config import get_cfg, validate_cfg

CONFIGS = sorted((REPOSITORY / "configs" / "pretrain").glob("*.yaml"))
CONFIGS += sorted((REPOSITORY / "configs" / "quick").glob("pretrain*.yaml"))

# The paper's recipes, written a second time: epochs, learning rate after the warm-up, batch, views,
# embedding, hidden, sub-batch, groups, draws; images of the data set, iterations of an epoch.
RECIPES = {
    "cifar10_cwrgp4_r18": (1000, 3e-3, 256, 4, 512, 1024, 64, 4, 1, 50_000, 195),
    "cifar10_cwrgp2_r18": (1000, 3e-3, 256, 2, 512, 1024, 64, 4, 4, 50_000, 195),
    "imagenet_cwrgp4_r50_100ep": (100, 0.1, 512, 4, 1024, 2048, 128, 2, 1, 1_281_167, 2502),
    "imagenet_cwrgp4_r50_200ep": (200, 0.1, 512, 4, 1024, 2048, 128, 2, 1, 1_281_167, 2502),
}


def read(path):
    cfg = get_cfg()
    cli.load_config(cfg, str(path), ["DATA.ROOT", "data"])
    validate_cfg(cfg)
    return cfg


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_config_builds_and_takes_a_forward_pass(path):
    cfg = read(path)
    method = build_method(cfg)
    assert method.encoder(torch.zeros(2, 3, 32, 32)).shape == (2, method.encoder.inplanes)
    assert method.projector[-1].out_features == cfg.MODEL.PROJECTOR.OUT
    header = path.read_text().split("\n_BASE_")[0].split("\nDATA")[0]
    assert re.search(r"^# Command: python tools/pretrain.py .*--config-file configs/", header, re.M)
    assert f"{path.parent.name}/{path.name}" in header and "# Expected: " in header


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_has_the_published_values(name):
    cfg = read(REPOSITORY / "configs" / "pretrain" / f"{name}.yaml")
    epochs, lr, batch, views, out, hidden, sub, groups, draws, images, iterations = RECIPES[name]
    plan = build_plan(cfg, images)
    learning_rate = build_learning_rate(cfg, plan)
    assert (plan.steps_per_epoch, plan.total_steps) == (iterations, epochs * iterations)
    assert learning_rate(499) == pytest.approx(lr)
    assert (batch, views) == (cfg.SOLVER.BATCH_SIZE, cfg.DATA.NUM_VIEWS)
    assert (out, hidden) == (cfg.MODEL.PROJECTOR.OUT, cfg.MODEL.PROJECTOR.HIDDEN)
    c = cfg.METHOD.CWRGP
    assert (sub, groups, draws) == (c.SUBBATCH_SIZE, c.NUM_GROUPS, c.NUM_DRAWS)
    assert c.RANDOM_PARTITION and c.NORMALIZE and c.EPS == 0


def test_every_recipe_has_its_published_values_tested():
    assert {path.stem for path in CONFIGS if path.parent.name == "pretrain"} == set(RECIPES)
