"""The learning rate of each arm: chosen on training images, and used in all of its cells."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from repository import REPOSITORY

import d2_transfer
from cwrgp.cells import RESULT
from d2_transfer.commands.trials import main
from d2_transfer.config import get_cfg
from d2_transfer.trials.cell import cell_config
from d2_transfer.trials.launch import run_here
from d2_transfer.trials.plan import Arm, Plan, read_plan, write_plan
from d2_transfer.trials.result_files import cell_folder, read_result
from d2_transfer.trials.status import status_line
from d2_transfer.trials.sweep import best_rate, rate_of, swept, use_sweep

C4 = REPOSITORY / "configs/quick/detection_faster_rcnn_r18_c4.yaml"


def test_the_best_rate() -> None:
    assert best_rate({0.01: 3.0, 0.02: 5.0, 0.04: math.nan}, 0.02) == 0.02
    # Of equal ones, the nearest to the protocol's in ratio.
    assert best_rate({0.01: 3.0, 0.04: 3.0}, 0.03) == 0.04
    assert best_rate({0.001: 0.0, 0.01: 0.0, 0.1: 0.0}, 0.02) == 0.01
    with pytest.raises(ValueError, match="lr-sweep 1,2: every training diverged; give smaller"):
        best_rate({1.0: math.nan, 2.0: math.nan}, 0.02)


def test_the_test_set_has_no_part_in_it() -> None:
    cfg = get_cfg()
    cfg.merge_from_file(str(REPOSITORY / "configs/detection/pascal_voc_R_50_C4_24k.yaml"))
    cfg.TEST.PATIENCE, cfg.DATASETS.VAL = 3, ("voc_2007_val",)
    use_sweep(cfg, 0.04, 5)
    assert cfg.DATASETS.TRAIN == ("voc_2007_trainval_10percent", "voc_2012_trainval_10percent")
    assert cfg.DATASETS.TEST == ("voc_2007_trainval_90to100percent",)
    assert cfg.DATASETS.VAL == () and cfg.TEST.PATIENCE == 0
    assert (cfg.SOLVER.BASE_LR, cfg.SOLVER.MAX_ITER, cfg.DATASETS.SUBSET_SEED) == (0.04, 2400, 5)


def test_each_arm_has_its_own_rate(tmp_path: Path) -> None:
    cfg = get_cfg()
    arms = (Arm("a", ("random",)), Arm("b", ("random",)))
    plan = Plan("p", cfg.dump(), (), arms, (1, 2), {"random": ("", "")}, rates=(0.01, 0.02))
    aps = iter([1.0, 2.0, 2.0, 1.0])
    for cell in plan.cells[:4]:
        with pytest.raises(ValueError, match="is not known yet: . of 2 cells of its sweep"):
            rate_of(tmp_path, plan, cell.arm, 0.001)
        with pytest.raises(ValueError, match="of b is not known yet: . of 2 cells"):
            cell_config(plan, plan.cells[5], tmp_path)
        folder = cell_folder(tmp_path, cell)
        folder.mkdir(parents=True)
        (folder / RESULT).write_text(json.dumps({"scores": {"bbox": {"AP": next(aps)}}}))
    assert swept(tmp_path, plan) == {"a": {0.01: 1, 0.02: 2}, "b": {0.01: 2, 0.02: 1}}
    rates = {c.name: cell_config(plan, c, tmp_path).SOLVER.BASE_LR for c in plan.cells[4:]}
    assert rates == {"a-1": 0.02, "b-1": 0.01, "a-2": 0.02, "b-2": 0.01}


def test_an_arm_whose_trainings_all_diverged_ends_the_trials_before_the_others_start(
    tmp_path: Path,
) -> None:
    arms = (Arm("a", ("random",)), Arm("b", ("random",)))
    files = {"random": ("", "")}
    plan = Plan("p", get_cfg().dump(), (), arms, (1,), files, rates=(1.0, 2.0))
    write_plan(tmp_path, plan)
    for cell in plan.cells[:4]:
        cell_folder(tmp_path, cell).mkdir(parents=True)
        scores = {"bbox": {"AP": 1.0}} if cell.arm == "a" else None
        result = {"scores": scores, "seconds": 60.0}
        (cell_folder(tmp_path, cell) / RESULT).write_text(json.dumps(result))
    assert status_line(tmp_path, plan) == "6 cells: 4 done, 2 waiting; about 2 min left"
    message = "b: lr-sweep 1,2: every training diverged; give smaller rates, with --restart"
    with pytest.raises(ValueError, match=message):
        run_here(tmp_path, plan, num_gpus=0, jobs=1)
    assert not (tmp_path / "logs").exists()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:torch.meshgrid")
def test_a_sweep_and_fractions_really_run(
    tmp_path: Path, scenes: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """The rate 1e9 diverges, which tells it is too high and ends nothing."""
    name = "swept"
    results = d2_transfer.run_trials(
        C4,
        {"one": "random", "two": "random"},
        output=tmp_path,
        trials=1,
        num_gpus=0,
        fractions=(50, 100),
        lr_sweep=(0.002, 1e9),
        **{
            "DATASETS.CUSTOM": [scenes.coco(name)],
            "DATASETS.TRAIN": (name,),
            "DATASETS.TEST": (name,),
            "INPUT.MIN_SIZE_TRAIN": (64,),
            "INPUT.MIN_SIZE_TEST": 64,
            "TEST.PRECISE_BN.ENABLED": False,
            "SOLVER.IMS_PER_BATCH": 2,
            "SOLVER.MAX_ITER": 40,
            "SOLVER.WARMUP_ITERS": 0,
            "SOLVER.STEPS": (),
            "SOLVER.AMP.ENABLED": False,
            "LOGGERS": [],
        },
    )
    plan = read_plan(tmp_path)
    assert plan is not None and len(plan.cells) == 8
    assert all(math.isnan(aps[1e9]) for aps in swept(tmp_path, plan).values())
    for cell in plan.cells[4:]:
        result = read_result(tmp_path, cell)
        assert result is not None and result["rate"] == 0.002
    listed = tmp_path / "cells/one@50percent-1/run/subsets/swept_50percent.json"
    assert json.loads(listed.read_text())["num_images"] == 3
    config = (tmp_path / "cells/one@50percent-1/run/config.yaml").read_text()
    assert "MAX_ITER: 20" in config
    # The same weights and seeds: the fractions of both arms are the same runs.
    assert results["sweep"]["one"]["chosen"] == 0.002
    assert results["sweep"]["one"]["values"]["1e+09"] is None
    part = results["fractions"]["50"]
    assert set(part["arms"]) == {"one", "two"} and part["comparisons"][0]["verdict"]
    assert "AP over label fractions" in (tmp_path / "report.html").read_text()
    words = " ".join(results["deviations"])
    assert "learning rate of each arm by a sweep over 0.002, 1e+09" in words
    assert "50 % of the training images" in words
    assert main(["--output", str(tmp_path), "--list"]) == 0
    assert capsys.readouterr().out.count("diverged") == 2
    (cell_folder(tmp_path, plan.cells[-1]) / RESULT).unlink()
    assert main(["--output", str(tmp_path), "--status"]) == 0
    assert "7 done, 1 started; about" in capsys.readouterr().out
