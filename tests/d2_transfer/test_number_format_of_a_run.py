"""The number format of a fine-tuning: measured, logged, saved, kept on resume; old checkpoints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from detectron2.config import CfgNode
from repository import REPOSITORY

from cwrgp.number_format import NumberFormat
from d2_transfer.config import get_cfg
from d2_transfer.fine_tuning import RunOptions, fine_tune, prepare
from d2_transfer.number_format import (
    keep_number_format,
    number_format_of,
    resolve_number_format,
)
from d2_transfer.trainer import Trainer

C4 = REPOSITORY / "configs" / "quick" / "detection_faster_rcnn_r18_c4.yaml"
RESUME = RunOptions(num_gpus=0, resume=True)

pytestmark = pytest.mark.filterwarnings("ignore:torch.meshgrid")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CWRGP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "number_formats"


def config(scenes: Any, output: Path, *opts: Any) -> CfgNode:
    """Two iterations on two images each, from random weights."""
    cfg = get_cfg()
    cfg.merge_from_file(str(C4))
    cfg.DATASETS.CUSTOM = [scenes.coco("formats")]
    cfg.DATASETS.TRAIN = cfg.DATASETS.TEST = ("formats",)
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = 2
    cfg.MODEL.DEVICE = "cpu"
    cfg.INPUT.MIN_SIZE_TRAIN = (64,)
    cfg.TEST.PRECISE_BN.ENABLED = False
    cfg.SOLVER.IMS_PER_BATCH, cfg.SOLVER.MAX_ITER, cfg.SOLVER.STEPS = 2, 2, ()
    cfg.LOGGERS = []
    cfg.OUTPUT_DIR = str(output)
    cfg.merge_from_list(list(opts))
    return cfg


def saved(output: Path) -> dict[str, Any]:
    return torch.load(output / "model_final.pth")["trainer"]


def test_a_run_measures_logs_saves_and_keeps_its_format(
    scenes: Any, tmp_path: Path, cache: Path
) -> None:
    output = tmp_path / "run"
    fine_tune(config(scenes, output), RunOptions(num_gpus=0))
    chosen = NumberFormat(**saved(output)["number_format"])
    assert chosen.dtype in ("fp32", "bf16")
    amp = yaml.safe_load((output / "config.yaml").read_text())["SOLVER"]["AMP"]
    assert (amp["DTYPE"], amp["MEMORY_FORMAT"]) == chosen
    log = (output / "log.txt").read_text()
    assert f"Number format: {chosen.dtype}, {chosen.memory_format} (measured: fp32 contig" in log
    (file,) = cache.iterdir()
    # Another choice of the machine does not change a run that goes on.
    content = json.loads(file.read_text())
    for name in content["seconds"]:
        content["seconds"][name] = 1.0 if name == "/".join(chosen) else 0.01
    file.write_text(json.dumps(content))
    new = prepare(config(scenes, tmp_path / "new"), RunOptions(num_gpus=0))
    other, _ = resolve_number_format(new)
    assert number_format_of(other) != chosen
    fine_tune(config(scenes, output, "SOLVER.MAX_ITER", 3), RESUME)
    assert NumberFormat(**saved(output)["number_format"]) == chosen
    assert torch.load(output / "model_final.pth")["iteration"] == 2


@pytest.mark.slow
def test_a_run_in_bf16_learns_and_another_format_may_go_on(scenes: Any, tmp_path: Path) -> None:
    opts = ("SOLVER.AMP.DTYPE", "bf16", "SOLVER.MAX_ITER", 20, "SOLVER.WARMUP_ITERS", 0)
    fine_tune(config(scenes, tmp_path, *opts), RunOptions(num_gpus=0))
    records = map(json.loads, (tmp_path / "metrics.json").read_text().splitlines())
    assert [r["total_loss"] for r in records if "total_loss" in r][-1] < 2
    assert saved(tmp_path)["number_format"] == {"dtype": "bf16", "memory_format": "channels_last"}
    assert "measured" not in (tmp_path / "log.txt").read_text()
    weights = torch.load(tmp_path / "model_final.pth")["model"].values()
    assert all(w.dtype in (torch.float32, torch.int64) for w in weights)
    assert all(w.isfinite().all() for w in weights)
    opts = ("SOLVER.AMP.DTYPE", "fp32", "SOLVER.MAX_ITER", 21)
    fine_tune(config(scenes, tmp_path, *opts), RESUME)
    assert saved(tmp_path)["number_format"]["dtype"] == "fp32"


def old_checkpoint(scenes: Any, output: Path, *, scaler: bool) -> None:
    """What the version without number formats wrote."""
    opts = ("SOLVER.AMP.ENABLED", False)
    fine_tune(config(scenes, output, *opts), RunOptions(num_gpus=0))
    path = output / "model_final.pth"
    checkpoint = torch.load(path)
    del checkpoint["trainer"]["number_format"]
    if scaler:
        state = torch.amp.GradScaler("cuda").state_dict()
        checkpoint["trainer"]["_trainer"]["grad_scaler"] = state
    torch.save(checkpoint, path)


def test_an_old_run_in_fp32_goes_on_in_fp32(scenes: Any, tmp_path: Path, cache: Path) -> None:
    old_checkpoint(scenes, tmp_path, scaler=False)
    fine_tune(config(scenes, tmp_path, "SOLVER.MAX_ITER", 3), RESUME)
    assert saved(tmp_path)["number_format"] == {"dtype": "fp32", "memory_format": "contiguous"}
    assert not cache.exists()


def test_an_old_run_with_mixed_precision_goes_on_in_fp16(scenes: Any, tmp_path: Path) -> None:
    old_checkpoint(scenes, tmp_path, scaler=True)
    cfg = config(scenes, tmp_path)
    keep_number_format(cfg, saved(tmp_path))
    assert (cfg.SOLVER.AMP.DTYPE, cfg.SOLVER.AMP.MEMORY_FORMAT) == ("fp16", "contiguous")
    with pytest.raises(ValueError, match="SOLVER.AMP.DTYPE fp16 needs a GPU, MODEL.DEVICE is cpu"):
        prepare(config(scenes, tmp_path), RESUME)
    # What is said explicitly is done.
    cfg = prepare(config(scenes, tmp_path, "SOLVER.AMP.DTYPE", "bf16"), RESUME)
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=True)
    assert trainer.start_iter == 2


def test_a_format_without_mixed_precision_is_fp32(scenes: Any, tmp_path: Path, cache: Path) -> None:
    cfg, times = resolve_number_format(config(scenes, tmp_path, "SOLVER.AMP.ENABLED", False))
    assert number_format_of(cfg) == ("fp32", "contiguous") and times == ""
    assert not cache.exists()
    assert get_cfg().SOLVER.AMP.ENABLED is False  # as in Detectron2
