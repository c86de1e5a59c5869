"""`--profile` in real pretraining runs: the files, and a table that adds up."""

from __future__ import annotations

import gzip
import json

import pytest
import torch
from quick_run import QUICK, make_cfg
from two_processes import in_two_processes

from cwrgp.commands import pretrain
from cwrgp.commands.pretraining_run import run_pretraining
from cwrgp.profiling import NEEDED_STEPS, PROFILED_STEPS
from cwrgp.trackers.jsonl import read_metrics

OPTS = ("DATA.NUM_WORKERS", 0, "EVAL.PERIOD", 0, "CHECKPOINT_PERIOD", 0, "SOLVER.EPOCHS", 6)
STEPS = 12


def read_table(folder) -> dict[str, float]:
    """part -> milliseconds per step."""
    rows = [line.split("|")[1:-1] for line in (folder / "profile.txt").read_text().splitlines()]
    return {row[0].strip(): float(row[1]) for row in rows[2:]}


def read_trace(file) -> list[dict]:
    with gzip.open(file) as opened:
        return json.load(opened)["traceEvents"]


def test_a_run_is_profiled_and_goes_on(image_folder, tmp_path):
    assert STEPS > NEEDED_STEPS
    run_pretraining(make_cfg(image_folder, tmp_path, *OPTS), profile=True)
    losses = [r for r in read_metrics(tmp_path / "metrics.json") if "total_loss" in r]
    assert len(losses) == STEPS and (tmp_path / "model_final.pth").is_file()

    events = read_trace(tmp_path / "profile_rank0.json.gz")
    names = [event.get("name") for event in events]
    assert sum(str(name).startswith("ProfilerStep#") for name in names) == PROFILED_STEPS
    assert {"step/loss", "step/backward", "aten::convolution"} <= set(names)
    table = read_table(tmp_path)
    for name in ("data", "forward", "loss", "backward", "optimizer", "logging"):
        assert table[name] > 0, name
    assert table["communication"] == table["evaluation, saving"] == 0
    parts = sum(ms for name, ms in table.items() if name not in ("step", "other", "communication"))
    assert 0.8 * table["step"] < parts <= table["step"]
    assert (tmp_path / "profile.txt").read_text() in (tmp_path / "log.txt").read_text()


def one_of_two(rank: int, images: str, folder: str) -> torch.Tensor:
    run_pretraining(make_cfg(images, folder, *OPTS), profile=True)
    return torch.tensor(rank)


@pytest.mark.slow
@pytest.mark.dist
def test_each_of_two_processes_writes_a_trace(image_folder, tmp_path):
    (tmp_path / "exchange").mkdir()
    in_two_processes(tmp_path / "exchange", one_of_two, str(image_folder), str(tmp_path / "run"))
    for rank in range(2):
        events = read_trace(tmp_path / "run" / f"profile_rank{rank}.json.gz")
        assert any(event.get("name") == "gloo:all_reduce" for event in events)
    table = read_table(tmp_path / "run")
    assert 0 < table["communication"] < table["step"]


def test_a_run_without_the_option_is_not_profiled(image_folder, tmp_path):
    run_pretraining(make_cfg(image_folder, tmp_path, *OPTS, "SOLVER.EPOCHS", 2))
    assert not [*tmp_path.glob("profile*")]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["SOLVER.EPOCHS", "4"], "--profile needs 10 iterations, and 8 are left in this run; "),
        (["--eval-only"], "--profile profiles training steps; omit it, or --eval-only"),
    ],
)
def test_what_cannot_be_profiled_is_said(image_folder, tmp_path, capsys, arguments, message):
    options = [a for a in arguments if a.startswith("--")]
    pairs = ["DATA.ROOT", str(image_folder), "OUTPUT_DIR", str(tmp_path), *map(str, OPTS)]
    pairs += [a for a in arguments if not a.startswith("--")]
    code = pretrain.main(["--profile", *options, "--config-file", str(QUICK), *pairs])
    assert code == 2
    assert f"error: {message}" in capsys.readouterr().err
