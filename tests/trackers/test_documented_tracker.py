"""The tracker that docs/pretraining.md shows, in a run; and W&B in a run."""

from __future__ import annotations

import csv
import re

import pytest
from repository import REPOSITORY
from wandb_files import offline_files, read_history

from cwrgp.cli import load_config
from cwrgp.commands.pretraining_run import run_pretraining
from cwrgp.config import get_cfg
from cwrgp.trackers.build import TRACKERS
from cwrgp.trackers.jsonl import read_metrics

QUICK = str(REPOSITORY / "configs/quick/pretrain_cwrgp_r18.yaml")


def pretrain(image_folder, output, epochs, loggers, **options):
    cfg = get_cfg()
    pairs = ["DATA.ROOT", image_folder, "OUTPUT_DIR", output, "SOLVER.EPOCHS", epochs]
    pairs += ["DATA.NUM_WORKERS", 0, "LOGGERS", loggers, "SOLVER.WARMUP_ITERS", 1]
    load_config(cfg, QUICK, [str(word) for word in pairs])
    run_pretraining(cfg, **options)
    return read_metrics(output / "metrics.json")


def test_the_documented_tracker_gets_every_value(image_folder, tmp_path, monkeypatch):
    text = (REPOSITORY / "docs/pretraining.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    monkeypatch.setattr("cwrgp.trackers.build.TRACKERS", dict(TRACKERS))  # the code adds to it
    exec(code, {"__name__": "documented"})
    records = pretrain(image_folder, tmp_path, 1, ["csv"])
    with (tmp_path / "metrics.csv").open(newline="") as file:
        rows = [(int(step), name, float(value)) for step, name, value in csv.reader(file)]
    assert rows == [
        (record["iteration"], name, value)
        for record in records
        for name, value in record.items()
        if name != "iteration"
    ]
    assert len(rows) > 20 and not list(tmp_path.glob("events.out.tfevents*"))


def test_a_resumed_run_goes_on_in_wandb(image_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    pretrain(image_folder, tmp_path, 1, ["wandb"])
    records = pretrain(image_folder, tmp_path, 2, ["wandb"], resume=True)
    first, second = offline_files(tmp_path)
    assert first.name == second.name
    history = [*read_history(first), *read_history(second)]
    assert [r["iteration"] for r in history] == [r["iteration"] for r in records]
    for logged, record in zip(history, records, strict=True):
        assert logged == pytest.approx(record)
