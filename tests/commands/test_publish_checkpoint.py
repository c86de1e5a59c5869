"""tools/publish_checkpoint.py as a user meets it; the work is tested in test_publish.py."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import torch
from encoders import own_checkpoint

from cwrgp.config import get_cfg

Run = Callable[..., "subprocess.CompletedProcess[str]"]
TOOL = "tools/publish_checkpoint.py"


def test_what_is_printed_lies_there(tmp_path: Path, run_tool: Run) -> None:
    run, out = tmp_path / "model_final.pth", tmp_path / "published"
    torch.save(own_checkpoint() | {"config": get_cfg().dump(), "torch_version": "2.14.1"}, run)
    command = (TOOL, run, out, "--name", "r18", "--encoder-only", "--license", "CC0")
    result = run_tool(*command, "--metrics", "top1=69.5", "top5=90")
    assert result.returncode == 0 and result.stderr == "", result.stderr
    rows = [line.split() for line in result.stdout.splitlines()]
    assert [row[0] for row in rows] == ["written", "card", "sha256", "metric", "metric"]
    checkpoint, card = Path(rows[0][1]), Path(rows[1][1])
    assert checkpoint == out / f"r18-{rows[2][1][:8]}.pth"
    assert "| licence | CC0 |" in card.read_text() and "| metric top5 | 90 |" in card.read_text()
    # Another process writes the same file: the same name, and no conflict.
    again = run_tool(*command, "--metrics", "top1=69.5", "top5=90")
    assert again.stdout == result.stdout


def test_a_mistake_is_one_line_and_exit_code_2(tmp_path: Path, run_tool: Run) -> None:
    torch.save({"a": torch.ones(1)}, tmp_path / "other.pth")
    result = run_tool(TOOL, tmp_path / "other.pth", tmp_path / "out", "--name", "r18")
    assert result.returncode == 2 and result.stdout == ""
    assert "is not a checkpoint of a pretraining run" in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()
