"""What a run writes about itself, and that writing it changes nothing."""

from __future__ import annotations

import shutil

import pytest
import torch
from quick_run import make_cfg

from cwrgp.commands.pretraining_run import run_pretraining
from cwrgp.engine.checkpoint import Checkpoints
from cwrgp.engine.monitor import TrainingMonitor
from cwrgp.trackers.jsonl import read_metrics

VOLATILITY = ("monitor/target_volatility", "monitor/whitening_volatility")
SHORT = ("SOLVER.EPOCHS", 2, "EVAL.PERIOD", 0, "LOGGERS", [])


def state_of(folder):
    return torch.load(folder / "model_final.pth", weights_only=True)


def assert_same_weights(a, b):
    assert a["model"].keys() == b["model"].keys()
    for name, value in a["model"].items():
        assert torch.equal(value, b["model"][name]), name


@pytest.fixture(scope="module")
def monitored(image_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("monitored")
    run_pretraining(make_cfg(image_folder, folder, *SHORT, "MONITOR.TARGET_VOLATILITY", True))
    return folder


def test_a_run_records_embedding_encoder_and_targets(monitored):
    records = read_metrics(monitored / "metrics.json")
    assert len(records) == 4
    names = ("std", "effective_rank", "numerical_rank", "normalized_stable_rank")
    keys = {f"{stage}/{name}" for stage in ("embedding", "encoder") for name in names}
    cosines = {"embedding/positive_cosine", "embedding/negative_cosine"}
    for record in records:
        assert keys | cosines | set(VOLATILITY) <= record.keys()
        assert 0 < record["monitor/target_volatility"] < 2
        assert record["embedding/normalized_stable_rank"] <= 1


def test_the_weights_do_not_depend_on_what_is_monitored(
    image_folder, monitored, tmp_path, monkeypatch
):
    plain, blind = tmp_path / "plain", tmp_path / "blind"
    run_pretraining(make_cfg(image_folder, plain, *SHORT))
    assert not any(set(VOLATILITY) & r.keys() for r in read_metrics(plain / "metrics.json"))
    assert_same_weights(state_of(monitored), state_of(plain))
    monkeypatch.setattr(TrainingMonitor, "statistics", lambda *args: {})
    monkeypatch.setattr(TrainingMonitor, "start", lambda *args: None)
    monkeypatch.setattr(TrainingMonitor, "verdict", lambda *args: None)
    run_pretraining(make_cfg(image_folder, blind, *SHORT))
    assert_same_weights(state_of(plain), state_of(blind))


def test_a_resumed_run_has_the_same_targets(image_folder, monitored, tmp_path):
    for path in monitored.iterdir():
        if path.name in ("model_0000001.pth", "metrics.json", "config.yaml"):
            shutil.copy(path, tmp_path)
    (tmp_path / "last_checkpoint").write_text("model_0000001.pth")
    cfg = make_cfg(image_folder, tmp_path, *SHORT, "MONITOR.TARGET_VOLATILITY", True)
    assert Checkpoints(tmp_path, keep=0).load_last()["iteration"] == 1
    run_pretraining(cfg, resume=True)
    assert_same_weights(state_of(monitored), state_of(tmp_path))
    assert "TARGET_VOLATILITY: true" in state_of(tmp_path)["config"]
    expected, got = (read_metrics(f / "metrics.json") for f in (monitored, tmp_path))
    for name in (*VOLATILITY, "encoder/effective_rank", "embedding/negative_cosine"):
        assert [r[name] for r in got] == [r[name] for r in expected], name


def test_targets_are_of_methods_that_whiten(image_folder, tmp_path):
    opts = (*SHORT, "MONITOR.TARGET_VOLATILITY", True, "METHOD.NAME", "simclr")
    with pytest.raises(ValueError, match=r"TARGET_VOLATILITY is .* METHOD.NAME simclr does not"):
        run_pretraining(make_cfg(image_folder, tmp_path, *opts))


def test_targets_are_of_as_many_samples_as_the_loss_whitens(image_folder, tmp_path):
    """Those of a part of the batch. Of 64, whitening of 48 channels would be singular."""
    opts = (*SHORT, "MONITOR.TARGET_VOLATILITY", True, "SOLVER.BATCH_SIZE", 64)
    opts += ("SOLVER.ACCUMULATE", 2, "METHOD.NAME", "zca_cw", "MODEL.PROJECTOR.OUT", 48)
    run_pretraining(make_cfg(image_folder, tmp_path, *opts))
    records = read_metrics(tmp_path / "metrics.json")
    assert records and all(0 < r["monitor/target_volatility"] < 2 for r in records)
