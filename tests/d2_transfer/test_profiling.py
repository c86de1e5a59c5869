"""`--profile` in a real fine-tuning: the same files and table as in pretraining."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from repository import REPOSITORY

import d2_transfer.train_net as train_net
from cwrgp.profiling import NEEDED_STEPS, PROFILED_STEPS

CONFIGS = REPOSITORY / "configs/quick"


def arguments(config: str, entry: dict[str, Any], output: Path, weights: Path) -> list[str]:
    name = str((entry["NAME"],))
    pairs = {
        "OUTPUT_DIR": output,
        "MODEL.WEIGHTS": weights,
        "DATASETS.CUSTOM": [entry],
        "DATASETS.TRAIN": name,
        "DATASETS.TEST": name,
        "MODEL.ROI_HEADS.NUM_CLASSES": 2,
        "SOLVER.IMS_PER_BATCH": 2,
        "SOLVER.MAX_ITER": NEEDED_STEPS + 1,
        "SOLVER.STEPS": (),
        "SOLVER.AMP.DTYPE": "fp32",
        "INPUT.MIN_SIZE_TRAIN": (64,),
        "INPUT.MIN_SIZE_TEST": 64,
        "TEST.PRECISE_BN.ENABLED": False,
        "DATALOADER.NUM_WORKERS": 0,
    }
    flat = [str(part) for pair in pairs.items() for part in pair]
    return ["--profile", "--num-gpus", "0", "--config-file", str(CONFIGS / config), *flat]


@pytest.mark.parametrize(
    "config",
    [
        pytest.param("detection_faster_rcnn_r18_c4.yaml", marks=pytest.mark.slow),
        "detection_mask_rcnn_r18.yaml",
    ],
)
def test_a_fine_tuning_is_profiled_and_goes_on(
    tmp_path: Path, scenes: Any, encoder_file: Path, config: str
) -> None:
    given = arguments(config, scenes.coco(f"profiled-{config}"), tmp_path, encoder_file)
    assert train_net.main(given) == 0
    assert (tmp_path / "model_final.pth").is_file()
    with gzip.open(tmp_path / "profile_rank0.json.gz") as file:
        names = [event.get("name") for event in json.load(file)["traceEvents"]]
    assert sum(str(name).startswith("ProfilerStep#") for name in names) == PROFILED_STEPS
    text = (tmp_path / "profile.txt").read_text()
    assert text in (tmp_path / "log.txt").read_text()
    rows = [line.split("|")[1:-1] for line in text.splitlines()[2:]]
    table = {row[0].strip(): float(row[1]) for row in rows}
    for name in ("data", "forward", "loss", "backward", "optimizer", "logging"):
        assert table[name] > 0, name
    assert table["communication"] == 0
    assert table["evaluation, saving"] < 0.05 * table["step"]
    assert table["other"] < 0.2 * table["step"]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["SOLVER.MAX_ITER", "9"], "--profile needs 10 iterations, and 9 are left in this run"),
        (["--eval-only"], "--profile profiles training steps; omit it, or --eval-only"),
    ],
)
def test_what_cannot_be_profiled_is_said(
    tmp_path: Path,
    scenes: Any,
    encoder_file: Path,
    capsys: pytest.CaptureFixture[str],
    more: list[str],
    message: str,
) -> None:
    config = "detection_faster_rcnn_r18_c4.yaml"
    given = arguments(config, scenes.coco("unprofiled"), tmp_path, encoder_file)
    options = [word for word in more if word.startswith("--")]
    pairs = [word for word in more if not word.startswith("--")]
    assert train_net.main([*options, *given, *pairs]) == 2
    assert f"error: {message}" in capsys.readouterr().err
