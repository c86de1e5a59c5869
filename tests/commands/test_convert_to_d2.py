"""tools/convert_to_d2.py as a user meets it: what it prints, and how it refuses."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from encoders import authors_checkpoint, make_encoder, own_checkpoint, under
from published import PUBLISHED

from d2_transfer.commands.convert import main

Run = Callable[..., "subprocess.CompletedProcess[str]"]
TOOL = "tools/convert_to_d2.py"


def convert_in_process(*arguments: object) -> int:
    """The command without the seconds that importing Detectron2 takes."""
    return main([str(argument) for argument in arguments])


def test_what_is_printed_is_what_was_done(tmp_path: Path, run_tool: Run) -> None:
    source, output = tmp_path / "in.pth", tmp_path / "out.pkl"
    torch.save(authors_checkpoint(18), source)
    result = run_tool(TOOL, source, output)
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    rows = dict(line.split("  ", maxsplit=1) for line in result.stdout.splitlines())
    rows = {name.strip(): value.strip() for name, value in rows.items()}
    assert rows["source"] == "cwrgp-ddp (online branch)"
    assert rows["architecture"] == "resnet18"
    assert rows["MODEL.RESNETS"].startswith("DEPTH 18 RES2_OUT_CHANNELS 64 NUM_GROUPS 1")
    assert rows["pixels"] == (
        "mean [123.675, 116.28, 103.53], std [58.395, 57.12, 57.375] (RGB, 0..255)"
    )
    # 20 convolutions, 20 x 5 of BatchNorm, 2 of the head, 1 of the optimizer.
    assert rows["tensors in"] == "123"
    assert rows["tensors used"] == "100, each once"
    # Beside the encoder: two tensors of the head, three entries, a counter per BatchNorm layer.
    assert rows["dropped 2"] == "head: module.head.0.weight, module.head.1.running_mean"
    assert rows["dropped 3"] == "not part of the network: epoch, arch, optimizer"
    assert rows["dropped 20"].startswith("counter, without effect: ")
    assert float(rows["proof float64"].split()[-2]) <= 1e-9
    assert rows["sha256 in"] == hashlib.sha256(source.read_bytes()).hexdigest()
    assert rows["sha256 out"] == hashlib.sha256(output.read_bytes()).hexdigest()
    assert rows["written"] == str(output)


def test_a_mistake_is_one_line_and_exit_code_2(tmp_path: Path, run_tool: Run) -> None:
    state = under("module.net.", make_encoder(18)) | under("module.other.", make_encoder(18, 1))
    torch.save({"state_dict": state}, tmp_path / "net.pth")
    result = run_tool(TOOL, tmp_path / "net.pth", tmp_path / "out.pkl")
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr.startswith("error: two encoders or more, under 'module.net.' in 'state_d")
    assert "choose one with --prefix module.net.\n" in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "out.pkl").exists()


def test_the_traceback_is_shown_where_asked(tmp_path: Path) -> None:
    arguments = (tmp_path / "nowhere.pth", tmp_path / "out.pkl")
    assert convert_in_process(*arguments) == 2
    with pytest.raises(FileNotFoundError, match="nowhere.pth: no such file"):
        convert_in_process(*arguments, "--debug")


def test_the_format_can_be_chosen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, output = tmp_path / "in.pth", tmp_path / "out.pth"
    both = {**own_checkpoint(18), "state_dict": authors_checkpoint(18)["state_dict"]}
    torch.save(both, source)
    assert convert_in_process(source, output) == 2
    assert "two encoders or more, under 'encoder.' in 'model'" in capsys.readouterr().err
    assert not output.exists()
    assert convert_in_process(source, output, "--source", "cwrgp") == 0
    shown = capsys.readouterr().out
    assert "cwrgp (online branch)\n" in shown
    assert "mean and std unknown: set MODEL.PIXEL_MEAN and MODEL.PIXEL_STD to those of" in shown
    with pytest.raises(SystemExit, match="2"):
        convert_in_process(source, output, "--source", "mocov2")
    assert "argument --source: invalid choice: 'mocov2' (choose from" in capsys.readouterr().err


def test_a_cast_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    halves = {k: v.half() if v.ndim == 4 else v for k, v in make_encoder(18).items()}
    torch.save(halves, tmp_path / "half.pth")
    assert convert_in_process(tmp_path / "half.pth", tmp_path / "out.pkl") == 0
    assert "warning        20 tensors were float16, stored as float32" in capsys.readouterr().out


def test_the_report_is_complete(tmp_path: Path) -> None:
    source, output, report = (tmp_path / name for name in ("in.pth", "out.pkl", "report.json"))
    torch.save(PUBLISHED["moco"].build(18), source)
    assert convert_in_process(source, output, "--branch", "momentum", "--report", report) == 0
    content = json.loads(report.read_text())
    assert (content["source"], content["branch"]) == (["moco"], "momentum")
    assert content["architecture"] == "resnet18"
    assert content["pixel_mean"] == [123.675, 116.28, 103.53]
    assert content["pixel_std"] == [58.395, 57.12, 57.375]
    assert content["dropped"]["module.queue"] == "head"
    assert content["dropped"]["module.encoder_q.bn1.bias"] == "online branch"
    assert content["tensors_used"] == 100
    assert content["tensors_in"] == 2 * 120 + 3 + 1 + 1  # two encoders, heads, pointer, optimizer
    assert content["largest_relative_difference"]["float64"] <= 1e-9
    assert content["sha256_out"] == hashlib.sha256(output.read_bytes()).hexdigest()


def test_no_proof_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(make_encoder(18), tmp_path / "in.pth")
    assert convert_in_process(tmp_path / "in.pth", tmp_path / "out.pkl", "--no-verify") == 0
    assert "proof          none (--no-verify)" in capsys.readouterr().out


def test_the_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert convert_in_process("--list") == 0
    assert "momentum  state_dict: module.momentum_backbone." in capsys.readouterr().out
    with pytest.raises(SystemExit, match="2"):
        convert_in_process("in.pth")
    assert "INPUT and OUTPUT are needed" in capsys.readouterr().err


def test_a_report_overwrites_no_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, output = tmp_path / "in.pth", tmp_path / "out.pkl"
    torch.save(make_encoder(18), source)
    before = source.read_bytes()
    for report in (source, output, tmp_path, tmp_path / "nowhere" / "r.json"):
        assert convert_in_process(source, output, "--report", report) == 2
        assert f"error: --report {report}" in capsys.readouterr().err
    assert source.read_bytes() == before and not output.exists()


def test_keys_cannot_write_lines_of_the_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key = "queue\nproof float64  perfect\x1b[31m"
    torch.save(make_encoder(18) | {key: torch.ones(1)}, tmp_path / "in.pth")
    assert convert_in_process(tmp_path / "in.pth", tmp_path / "out.pkl") == 0
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("proof float64") for line in lines) == 1
    assert any(r"head: queue\nproof float64  perfect\x1b[31m" in line for line in lines)
