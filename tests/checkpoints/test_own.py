"""The contents of this project's checkpoints: written, checked, read in older forms."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn

from cwrgp.checkpoints.own import OwnCheckpoint, pack, read_config, unpack
from cwrgp.checkpoints.reader import read_checkpoint
from cwrgp.config import aliases, get_cfg
from cwrgp.engine.resume import restore

# As version 0.1.0 wrote it.
OLD_CONFIG = """
DATA: {NAME: cifar10, ROOT: data, MEAN: [0.49, 0.48, 0.45], STD: [0.2, 0.2, 0.2]}
EVAL: {PERIOD: 10, KNN_K: 5}
METHOD: {NAME: cwrgp, EMA: 0.0}
MODEL: {ARCH: resnet18, STEM: small}
OUTPUT_DIR: output/run
SEED: 0
SOLVER: {BATCH_SIZE: 256, OPTIMIZER: adam, BASE_LR: 0.003, TRUST: 0.001}
CHECKPOINTS_KEPT: 2
"""
# The same run under today's names.
NEW_CONFIG = OLD_CONFIG.replace("TRUST:", "TRUST_COEFFICIENT:").replace("S_KEPT", "S_TO_KEEP")


def old_content(method: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    return {
        "model": method.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scaler": {},
        "iteration": 41,
        "config": OLD_CONFIG,
        "num_images": 50_000,
        "torch_version": "2.15.0",
    }


@pytest.fixture
def method() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 2))


@pytest.fixture
def content(method: nn.Module, tmp_path: Path) -> dict[str, Any]:
    """A checkpoint of version 0.1.0, read from a file."""
    optimizer = torch.optim.Adam(method.parameters())
    method(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    torch.save(old_content(method, optimizer), tmp_path / "old.pth")
    return read_checkpoint(tmp_path / "old.pth")


def test_packing_and_unpacking(method: nn.Module) -> None:
    state = method.state_dict()
    config = get_cfg().dump()
    content = pack(
        model=state, optimizer={"a": 1}, scaler={}, iteration=7, config=config, num_images=9
    )
    assert unpack(content, "x.pth") == OwnCheckpoint(
        model=state,
        iteration=7,
        config=yaml.safe_load(config),
        torch_version=str(torch.__version__),
        optimizer={"a": 1},
        scaler={},
        num_images=9,
    )


def test_a_checkpoint_of_the_first_version_goes_on_as_the_same_run(
    content: dict[str, Any], method: nn.Module, caplog: pytest.LogCaptureFixture
) -> None:
    assert aliases.RENAMED["SOLVER.TRUST"] == "SOLVER.TRUST_COEFFICIENT"
    fresh = nn.Sequential(nn.Linear(2, 2))
    optimizer = torch.optim.Adam(fresh.parameters())
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    with caplog.at_level("WARNING", logger="cwrgp"):
        start = restore(content, fresh, optimizer, scaler, config=NEW_CONFIG, num_images=50_000)
    assert start == 42
    assert caplog.text == ""  # nothing has changed
    assert torch.equal(fresh[0].weight, method[0].weight)
    assert len(optimizer.state_dict()["state"]) == 2


def test_a_published_file_is_not_resumed(content: dict[str, Any], method: nn.Module) -> None:
    del content["optimizer"]
    optimizer = torch.optim.Adam(method.parameters())
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    with pytest.raises(ValueError, match="it has no optimizer state; published files have none"):
        restore(content, method, optimizer, scaler, config=OLD_CONFIG, num_images=50_000)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": None}, "x.pth is not a checkpoint of a pretraining run: it has no 'model' of"),
        ({"iteration": "7"}, "it has no 'iteration' of type int"),
        ({"torch_version": None}, "it has no 'torch_version' of type str"),
        ({"config": "words"}, "its config does not have the sections DATA, MODEL, METHOD, SOLVER"),
        ({"config": "{"}, "its config does not have the sections"),
        ({"model": {"a": 1}}, "'a' of its model is a int"),
        ({"model": {"a": torch.ones(1, device="meta")}}, "'a' of its model is a Tensor"),
    ],
)
def test_other_contents_are_refused(
    content: dict[str, Any], change: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        unpack(content | change, "x.pth")


def test_files_of_others_have_no_config() -> None:
    assert read_config({"config": "{"}) is None
    assert read_config({"config": "words"}) is None
    assert read_config({"state_dict": {}}) is None
