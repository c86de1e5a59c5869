"""The number format of a run: measured, logged, saved, kept on resume; old checkpoints."""

from __future__ import annotations

import logging

import pytest
import torch
import yaml
from quick_run import make_cfg

from cwrgp.builders import automatic
from cwrgp.builders.automatic import resolve_number_format
from cwrgp.builders.solver import build_precision
from cwrgp.commands.pretraining_run import run_pretraining
from cwrgp.config.aliases import upgrade_saved
from cwrgp.number_format import NumberFormat, choose_format, has_fast_bf16
from cwrgp.trackers.jsonl import read_metrics

CPU = torch.device("cpu")
SHORT = ["EVAL.PERIOD", 0, "DATA.NUM_WORKERS", 0, "SOLVER.EPOCHS", 2]
AUTO = ["SOLVER.AMP.DTYPE", "auto"]

FP32, FP32_LAST, BF16 = (
    NumberFormat("fp32", "contiguous"),
    NumberFormat("fp32", "channels_last"),
    NumberFormat("bf16", "channels_last"),
)


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CWRGP_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def give_times(monkeypatch):
    """Replaces the times; cache and choice stay what they are."""

    def give(fp32, fp32_last, bf16):
        times = {FP32: fp32, FP32_LAST: fp32_last, BF16: bf16}
        monkeypatch.setattr(
            automatic, "choose_format", lambda key, measure: choose_format(key, lambda: times)
        )

    return give


def saved_amp(folder):
    state = torch.load(folder / "model_final.pth", weights_only=True)
    return yaml.safe_load(state["config"])["SOLVER"]["AMP"]


def test_a_run_measures_saves_and_keeps_its_format(image_folder, tmp_path):
    cfg = make_cfg(image_folder, tmp_path / "run", *SHORT, *AUTO)
    run_pretraining(cfg)
    assert cfg.SOLVER.AMP.DTYPE == "auto"  # the caller's is not changed
    amp = saved_amp(tmp_path / "run")
    assert amp["DTYPE"] in ("fp32", "bf16")
    assert amp["MEMORY_FORMAT"] in ("contiguous", "channels_last")
    assert amp == yaml.safe_load((tmp_path / "run/config.yaml").read_text())["SOLVER"]["AMP"]
    first, *_ = (tmp_path / "run/log.txt").read_text().splitlines()
    name = "bf16 autocast" if amp["DTYPE"] == "bf16" else "fp32"
    assert f"in {name}" in first and "(measured: fp32 contiguous " in first
    assert len(list((tmp_path / "cache/number_formats").iterdir())) == 1


@pytest.mark.parametrize(
    "fixed", [FP32_LAST, *(pytest.param(f, marks=pytest.mark.slow) for f in (FP32, BF16))]
)
def test_measuring_changes_no_result(image_folder, tmp_path, give_times, fixed):
    """A run that chose a format is the run for which it was fixed."""
    give_times(*(0.5 if f == fixed else 1.0 for f in (FP32, FP32_LAST, BF16)))
    run_pretraining(make_cfg(image_folder, tmp_path / "auto", *SHORT, *AUTO))
    opts = ["SOLVER.AMP.DTYPE", fixed.dtype, "SOLVER.AMP.MEMORY_FORMAT", fixed.memory_format]
    run_pretraining(make_cfg(image_folder, tmp_path / "fixed", *SHORT, *opts))
    a, b = (torch.load(tmp_path / n / "model_final.pth")["model"] for n in ("auto", "fixed"))
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert saved_amp(tmp_path / "auto") == saved_amp(tmp_path / "fixed")


def test_the_measuring_itself_draws_no_random_numbers(image_folder, tmp_path):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    cfg = make_cfg(image_folder, tmp_path, *AUTO)
    assert resolve_number_format(cfg, None, CPU).startswith("measured: ")
    assert torch.equal(torch.get_rng_state(), before)


def test_bf16_losses_lie_close_to_those_of_fp32(image_folder, tmp_path):
    losses = {}
    for dtype in ("fp32", "bf16"):
        folder = tmp_path / dtype
        run_pretraining(make_cfg(image_folder, folder, *SHORT, "SOLVER.AMP.DTYPE", dtype))
        losses[dtype] = [r["total_loss"] for r in read_metrics(folder / "metrics.json")]
    assert len(losses["fp32"]) == len(losses["bf16"]) == 4
    assert losses["bf16"][0] == pytest.approx(losses["fp32"][0], rel=0.005)
    assert losses["bf16"] == pytest.approx(losses["fp32"], rel=0.1)  # the weights differ by now
    assert losses["bf16"] != losses["fp32"] or not has_fast_bf16(CPU)


def test_a_resumed_run_keeps_its_format(image_folder, tmp_path, give_times, caplog):
    give_times(1.0, 1.0, 2.0)
    run_pretraining(make_cfg(image_folder, tmp_path / "run", *SHORT, *AUTO))
    assert saved_amp(tmp_path / "run")["DTYPE"] == "fp32"
    (cached,) = (tmp_path / "cache/number_formats").iterdir()
    cached.unlink()
    give_times(1.0, 1.0, 0.1)  # as on another machine
    longer = [*SHORT[:-1], 3]
    with caplog.at_level(logging.WARNING, logger="cwrgp"):
        run_pretraining(make_cfg(image_folder, tmp_path / "run", *longer, *AUTO), resume=True)
    assert saved_amp(tmp_path / "run") == {
        "ENABLED": True,
        "DTYPE": "fp32",
        "MEMORY_FORMAT": "contiguous",
    }
    changed = [r.getMessage() for r in caplog.records if "changed configuration" in r.getMessage()]
    assert not any("AMP" in line for line in changed)


@pytest.mark.parametrize(
    ("saved", "expected"),
    [
        ({"ENABLED": True, "DTYPE": "bf16"}, ("bf16", "auto")),
        ({"ENABLED": True, "DTYPE": "fp16"}, ("fp16", "auto")),
        ({}, ("bf16", "auto")),
    ],
)
def test_a_checkpoint_without_the_keys_goes_on_as_it_was(image_folder, tmp_path, saved, expected):
    cfg = make_cfg(image_folder, tmp_path, *AUTO)
    old = upgrade_saved({"SOLVER": {"EPOCHS": 2, "AMP": saved}})
    assert resolve_number_format(cfg, old, CPU) == ""
    assert expected == (cfg.SOLVER.AMP.DTYPE, cfg.SOLVER.AMP.MEMORY_FORMAT)
    assert build_precision(cfg, CPU).memory_format == (
        torch.channels_last
        if expected[0] == "fp16" or has_fast_bf16(CPU)
        else torch.contiguous_format
    )


def test_what_is_given_is_used_without_measuring(image_folder, tmp_path):
    for opts in (["SOLVER.AMP.DTYPE", "fp16"], ["SOLVER.AMP.ENABLED", False, *AUTO]):
        cfg = make_cfg(image_folder, tmp_path, *opts)
        before = cfg.dump()
        assert resolve_number_format(cfg, None, CPU) == ""
        assert cfg.dump() == before
    assert not (tmp_path / "cache").exists()


def test_a_given_memory_format_outlives_the_measuring(image_folder, tmp_path, give_times):
    give_times(1.0, 1.0, 0.1)
    cfg = make_cfg(image_folder, tmp_path, *AUTO, "SOLVER.AMP.MEMORY_FORMAT", "contiguous")
    resolve_number_format(cfg, None, CPU)
    assert (cfg.SOLVER.AMP.DTYPE, cfg.SOLVER.AMP.MEMORY_FORMAT) == ("bf16", "contiguous")
