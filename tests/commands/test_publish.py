"""Publishing: what stays, what goes, that nothing changes on the way, and what is refused."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from encoders import authors_checkpoint, own_checkpoint
from fvcore.common.config import CfgNode
from torch import nn

from cwrgp.checkpoints.extract import extract_encoder
from cwrgp.checkpoints.reader import read_checkpoint
from cwrgp.commands.publish import publish
from cwrgp.config import get_cfg
from cwrgp.config.paths import PATH_KEYS


def _config() -> CfgNode:
    cfg = get_cfg()
    for key in PATH_KEYS:
        cfg.merge_from_list([key, "/private/folder"])
    return cfg


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """``model_final.pth`` of a run, with a real optimizer's state and metrics beside it."""
    state: dict[str, Any] = own_checkpoint(18)
    weight = nn.Parameter(torch.ones(1000, 1000))
    optimizer = torch.optim.Adam([weight])
    weight.sum().backward()
    optimizer.step()
    state |= {
        "optimizer": optimizer.state_dict(),
        "config": _config().dump(),
        "torch_version": "2.14.1",
    }
    (tmp_path / "run").mkdir()
    torch.save(state, tmp_path / "run" / "model_final.pth")
    records = [{"iteration": i, "knn/top1": 50.0 + i} for i in (0, 12, 99)]
    records.insert(2, {"iteration": 12, "total_loss": 1.0})
    lines = "".join(json.dumps(record) + "\n" for record in records)
    (tmp_path / "run" / "metrics.json").write_text(lines)
    return tmp_path / "run" / "model_final.pth"


def test_weights_stay_and_the_optimizer_goes(run: Path, tmp_path: Path) -> None:
    done = publish(run, tmp_path / "out", "cwrgp_r18", licence="CC BY 4.0")
    before, after = read_checkpoint(run), read_checkpoint(done.checkpoint)
    assert set(after) == {
        *("model", "iteration", "config", "torch_version", "versions", "metrics"),
    }
    assert after["versions"].keys() == {"torch", "torchvision", "cwrgp"}
    assert after["torch_version"] == "2.14.1"
    # All of the config but the folders of whoever trained it.
    assert "private" in before["config"] and "private" not in after["config"]
    cfg = get_cfg()
    cfg.OUTPUT_DIR = ""
    assert yaml.safe_load(after["config"]) == yaml.safe_load(cfg.dump())
    assert after["model"].keys() == before["model"].keys()
    assert all(torch.equal(t, after["model"][k]) for k, t in before["model"].items())
    # The 12th iteration's value, not that of a run that went on.
    assert after["metrics"] == done.metrics == {"knn/top1": 62.0}
    digest = hashlib.sha256(done.checkpoint.read_bytes()).hexdigest()
    assert done.sha256 == digest
    assert done.checkpoint.name == f"cwrgp_r18-{digest[:8]}.pth"
    assert done.checkpoint.stat().st_size < run.stat().st_size - 8_000_000
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        f"cwrgp_r18-{digest[:8]}.md",
        f"cwrgp_r18-{digest[:8]}.pth",
    ]
    card = done.card.read_text()
    assert "| input | mean [123.675, 116.28, 103.53], std [58.395, 57.12, 57.375]" in card
    for expected in (digest, "resnet18", "knn/top1 | 62", "torch 2.14.1", "CC BY 4.0", "BASE_LR"):
        assert expected in card
    assert f"cwrgp-convert {done.checkpoint.name} encoder.pkl" in card


def test_the_encoder_alone(run: Path, tmp_path: Path) -> None:
    done = publish(run, tmp_path / "out", "r18", encoder_only=True)
    state = read_checkpoint(done.checkpoint)
    assert state["model"] and all(key.startswith("encoder.") for key in state["model"])
    before, after = extract_encoder(read_checkpoint(run)), extract_encoder(state)
    assert before.state_dict.keys() == after.state_dict.keys()
    assert all(torch.equal(t, after.state_dict[k]) for k, t in before.state_dict.items())
    assert "not stated" in done.card.read_text()


def test_the_same_input_gives_the_same_bytes(run: Path, tmp_path: Path) -> None:
    one, other = publish(run, tmp_path / "a", "r18"), publish(run, tmp_path / "b", "r18")
    assert one.checkpoint.read_bytes() == other.checkpoint.read_bytes()
    assert one.card.read_bytes() == other.card.read_bytes()
    assert publish(run, tmp_path / "a", "r18") == one  # the same once more is no conflict


def test_a_view_of_a_large_tensor_takes_its_own_size_only(run: Path, tmp_path: Path) -> None:
    state = read_checkpoint(run)
    state["model"]["projector.view"] = torch.ones(5_000_000)[:2]
    torch.save(state, tmp_path / "view.pth")
    done = publish(tmp_path / "view.pth", tmp_path / "out", "r18")
    assert (tmp_path / "view.pth").stat().st_size - done.checkpoint.stat().st_size > 20_000_000


def test_what_is_there_is_not_overwritten(run: Path, tmp_path: Path) -> None:
    done = publish(run, tmp_path, "r18")
    done.card.write_text("edited")
    with pytest.raises(FileExistsError, match="md exists with other contents"):
        publish(run, tmp_path, "r18")
    assert done.card.read_text() == "edited"
    done.checkpoint.write_bytes(b"damaged")
    with pytest.raises(FileExistsError, match="pth exists with other contents"):
        publish(run, tmp_path, "r18")
    assert done.checkpoint.read_bytes() == b"damaged"


def test_metrics_are_taken_from_where_it_is_said(run: Path, tmp_path: Path) -> None:
    probe = tmp_path / "probe.json"
    probe.write_text('{"linear/top1": 69.5, "knn/top1": 1}')
    given = [str(probe), "knn/top1=2.5"]
    done = publish(run, tmp_path, "r18", metrics=given)
    assert done.metrics == {"linear/top1": 69.5, "knn/top1": 2.5}
    given = [str(run.parent / "metrics.json")]
    assert publish(run, tmp_path, "r18", metrics=given).metrics == {"knn/top1": 62.0}
    (run.parent / "metrics.json").unlink()
    assert publish(run, tmp_path, "r18").metrics == {}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("top1=high", r"^metrics top1=high: KEY=VALUE with a finite number"),
        ("top1=nan", r"top1=nan: KEY=VALUE with a finite number"),
        ("=1", r"=1: KEY=VALUE"),
        ("nowhere.json", r"nowhere.json: no such file, and not KEY=VALUE"),
        ("{file}", r"neither an object of numbers nor a metrics.json"),
    ],
)
def test_wrong_metrics(run: Path, tmp_path: Path, given: str, message: str) -> None:
    (tmp_path / "text").write_text("no JSON")
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        publish(run, tmp_path / "out", "r18", metrics=[given.format(file=tmp_path / "text")])
    assert not (tmp_path / "out").exists()


def damaged(state: dict[str, Any]) -> dict[str, tuple[Any, str]]:
    model = state["model"]
    without = {key: value for key, value in model.items() if key != "encoder.bn1.bias"}
    return {
        "authors": (authors_checkpoint(18), "is not a checkpoint of a pretraining run: .* 'model'"),
        "version": (state | {"torch_version": None}, "it has no 'torch_version' of type str"),
        "config": (state | {"config": "words"}, "its config does not have the sections"),
        "value": (state | {"model": model | {"a": 1}}, "'a' of its model is a int"),
        "missing": (state | {"model": without}, "encoder.bn1.bias"),
    }


@pytest.mark.parametrize("name", ["authors", "version", "config", "value", "missing"])
def test_other_files_are_refused(run: Path, tmp_path: Path, name: str) -> None:
    content, message = damaged(read_checkpoint(run))[name]
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=message) as error:
        publish(tmp_path / "other.pth", tmp_path / "out", "r18")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["", "a/b", "../a", ".hidden", "a b", "ä"])
def test_a_name_is_no_path(run: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="letters, digits"):
        publish(run, tmp_path / "out", name)
