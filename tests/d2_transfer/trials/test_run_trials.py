"""Trials that really train: cells, what they end in, and what is refused before anything starts."""

from __future__ import annotations

import contextlib
import json
import math
import os
import random
import shutil
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_coco_instances
from held_folders import held
from html_page import Page
from repository import REPOSITORY

import d2_transfer
from cwrgp.cells import State
from cwrgp.preemption import Preempted
from d2_transfer.commands.trials import main
from d2_transfer.data.registry import forget_data
from d2_transfer.scoring.score import score
from d2_transfer.trials import prepare
from d2_transfer.trials.cell import run_cell, state_of
from d2_transfer.trials.plan import Plan, read_plan
from d2_transfer.trials.result_files import cell_folder, read_result
from d2_transfer.trials.slurm import array_script

C4 = REPOSITORY / "configs/quick/detection_faster_rcnn_r18_c4.yaml"

pytestmark = pytest.mark.filterwarnings("ignore:torch.meshgrid")  # Detectron2's own, on this stack


def options(scenes: Any, name: str, **more: Any) -> dict[str, Any]:
    """Three iterations on two images each."""
    return {
        "DATASETS.CUSTOM": [scenes.coco(name)],
        "DATASETS.TRAIN": (name,),
        "DATASETS.TEST": (name,),
        "INPUT.MIN_SIZE_TRAIN": (56, 64),
        "INPUT.MIN_SIZE_TEST": 64,
        "TEST.PRECISE_BN.NUM_ITER": 2,
        "SOLVER.IMS_PER_BATCH": 2,
        "SOLVER.MAX_ITER": 3,
        "SOLVER.STEPS": (),
        "SOLVER.AMP.ENABLED": False,
        "DATALOADER.NUM_WORKERS": 0,
        "LOGGERS": [],
        **more,
    }


def arguments(output: Path, arms: list[str], given: dict[str, Any], *flags: Any) -> list[str]:
    words = ["--config-file", C4, "--output", output, "--weights", *arms, "--num-gpus", 0, *flags]
    pairs = [part for pair in given.items() for part in pair]
    return [str(word) for word in (*words, "--opts", *pairs)]


@pytest.fixture
def no_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plans only."""
    monkeypatch.setattr("cwrgp.cells.run_jobs", lambda *args, **kwargs: {})


def planned(output: Path, arms: list[str], given: dict[str, Any], *flags: Any) -> Plan:
    """A plan whose cells are not run: as if it were stopped at once."""
    assert main(arguments(output, arms, given, *flags)) == 75
    plan = read_plan(output)
    assert plan is not None
    return plan


def run(output: Path, plan: Plan, number: int) -> None:
    run_cell(output, plan, plan.cell(number), num_gpus=0)


def test_trials_end_in_files_that_agree(
    tmp_path: Path,
    scenes: Any,
    checkpoint_file: Path,
    encoder_file: Path,
    no_training: None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = options(scenes, "trials")
    arms = ["random=random", f"raw={checkpoint_file}", f"converted={encoder_file}"]
    plan = planned(tmp_path, arms, given, "--trials", 2)
    assert [cell.name for cell in plan.cells][:4] == [
        "random-1",
        "raw-1",
        "converted-1",
        "random-2",
    ]
    assert plan.deviations and any(d.startswith("SOLVER.MAX_ITER 3") for d in plan.deviations)
    assert not any(d.startswith(("LOGGERS", "SEED", "OUTPUT_DIR")) for d in plan.deviations)
    assert plan.cell(1).weights == ""
    for number in range(1, 7):
        assert state_of(tmp_path, plan.cell(number))[0] is State.WAITING
        run(tmp_path, plan, number)
        assert state_of(tmp_path, plan.cell(number))[0] is State.DONE
    # The raw checkpoint was converted into what the file of the third arm holds.
    detections = [cell_folder(tmp_path, plan.cell(n)) / "run/inference" for n in (2, 3)]
    texts = [next(f.glob("*/coco_instances_results.json")).read_text() for f in detections]
    assert texts[0] == texts[1]

    assert main(arguments(tmp_path, arms, given, "--trials", 2)) == 0
    printed = capsys.readouterr().out
    assert "6 of 6 cells are done already" in printed
    assert "| random    |   2 |" in printed and "Deviations from detection_faster_rcnn" in printed
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["schema"] == 1 and results["seeds"] == [1, 2] and results["images"] == 6
    file = next(detections[0].glob("*/coco_instances_results.json"))
    ap = score(f"coco:{scenes.root / 'coco.json'}", file)["bbox"]
    metrics = results["arms"]["raw"]["metrics"]
    assert metrics["bbox/AP"]["values"]["1"] == pytest.approx(ap["AP"], abs=1e-9)
    assert metrics["bbox/AP-bar"]["values"]["1"] == pytest.approx(ap["per_class"]["bar"], abs=1e-9)
    assert metrics["bbox/APl"]["mean"] is None and metrics["bbox/APl"]["n"] == 0
    values = list(metrics["bbox/AP50"]["values"].values())
    assert metrics["bbox/AP50"]["mean"] == pytest.approx(sum(values) / 2)
    assert metrics["bbox/AP50"]["std"] == pytest.approx(abs(values[0] - values[1]) / math.sqrt(2))
    first, second = results["comparisons"]
    assert (first["arm"], second["arm"], first["reference"]) == ("raw", "converted", "random")
    change = first["metrics"]["bbox/AP"]
    assert change["low"] <= change["value"] <= change["high"]
    assert first["metrics"] == second["metrics"]  # the same detections
    lines = (tmp_path / "results.csv").read_text().splitlines()
    assert lines[0] == "arm,seed,metric,percent" and len(lines) == 1 + 6 * 8
    assert (tmp_path / "table.tex").read_text().startswith("\\begin{tabular}")
    page = Page((tmp_path / "report.html").read_text())  # whole
    assert all(address.startswith(("data:", "#")) for address in page.resources)
    assert all(image["alt"] for image in page.images) and all(page.labels)
    assert first["verdict"] in page.texts["p"]
    assert [row for row in page.rows if row[:2] == ["raw", "2"]]
    # Against another arm: the same weights, the same runs.
    assert main(["--output", str(tmp_path), "--summarize", "--reference", "raw"]) == 0
    assert "identical runs" in capsys.readouterr().out
    assert main(["--output", str(tmp_path), "--list"]) == 0
    assert capsys.readouterr().out.count("| done ") == 6
    assert main(["--output", str(tmp_path), "--status"]) == 0
    assert capsys.readouterr().out == "6 cells: 6 done\n"
    (cell_folder(tmp_path, plan.cell(6)) / "result.json").unlink()
    assert main(["--output", str(tmp_path), "--status"]) == 0
    assert capsys.readouterr().out == "6 cells: 5 done, 1 started; about 0 min left\n"


def test_a_cell_that_was_stopped_or_killed_goes_on_bit_for_bit(
    tmp_path: Path,
    scenes: Any,
    encoder_file: Path,
    no_training: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given = options(scenes, "goes_on", **{"SOLVER.CHECKPOINT_PERIOD": 1})
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    for output in (whole, stopped):
        plan = planned(output, [f"a={encoder_file}"], given, "--trials", 1)
    run(whole, plan, 1)
    run_step = d2_transfer.trainer.Trainer.run_step  # type: ignore[attr-defined]

    def told(self: Any) -> None:
        run_step(self)
        if self.iter == 0:
            os.kill(os.getpid(), signal.SIGTERM)

    plan = read_plan(stopped)
    assert plan is not None
    with monkeypatch.context() as patch:
        patch.setattr("d2_transfer.trainer.Trainer.run_step", told)
        assert main(["--output", str(stopped), "--cell", "1", "--num-gpus", "0"]) == 75
    assert state_of(stopped, plan.cell(1))[0] is State.STARTED
    run(stopped, plan, 1)
    # Killed between the end of the training and the result.
    folder = cell_folder(stopped, plan.cell(1))
    (folder / "result.json").unlink()
    shutil.rmtree(folder / "run/inference")
    run(stopped, plan, 1)
    results = [read_result(output, plan.cell(1)) for output in (whole, stopped)]
    assert results[0] and results[1] and results[0]["scores"] == results[1]["scores"]
    weights = [
        torch.load(cell_folder(output, plan.cell(1)) / "run/model_final.pth")["model"]
        for output in (whole, stopped)
    ]
    assert all(torch.equal(tensor, weights[1][name]) for name, tensor in weights[0].items())


def test_a_cell_that_fails_is_named_and_can_run_again(
    tmp_path: Path,
    scenes: Any,
    encoder_file: Path,
    no_training: None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = options(scenes, "fails", **{"SOLVER.BASE_LR": 1e12, "SOLVER.MAX_ITER": 20})
    plan = planned(tmp_path, [f"a={encoder_file}"], given, "--trials", 1)
    command = ["--output", str(tmp_path), "--cell", "1", "--num-gpus", "0"]
    capsys.readouterr()
    assert main(command) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("error: ")
    state, why = state_of(tmp_path, plan.cell(1))
    assert state is State.FAILED and "\n" not in why and why
    assert main(["--output", str(tmp_path), "--list"]) == 0
    assert "failed" in capsys.readouterr().out


def test_what_cannot_work_is_refused_before_anything_is_trained(
    tmp_path: Path,
    scenes: Any,
    encoder_file: Path,
    no_training: None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = options(scenes, "refused")

    def refused(*words: Any, output: str = "new", arms: Any = None, **more: Any) -> str:
        arms = arms or [f"a={encoder_file}"]
        capsys.readouterr()
        assert main(arguments(tmp_path / output, arms, {**given, **more}, *words)) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ") and error.count("\n") == 1
        return error

    assert "trials 0 is below 1" in refused("--trials", 0)
    assert "reference 'b' is no arm: a" in refused("--reference", "b")
    assert "no.pkl" in refused(arms=["a=no.pkl"])
    assert "on one test set" in refused(**{"DATASETS.TEST": ("refused", "refused")})
    part = {"DATASETS.TEST": ("refused_50to100percent",)}
    assert "is a part of 'refused', and fractions give" in refused("--fractions", "50,100", **part)
    assert "needs --launcher slurm" in refused("--sbatch=--gres=gpu:1")
    images = str(scenes.root / "JPEGImages")
    error = refused("--pretraining-data", images)
    assert "6 of 6 test images are in" in error and "or give --allow-leakage" in error
    assert not (tmp_path / "new" / "plan.json").exists()
    leak = ["--trials", 1, "--pretraining-data", images, "--allow-leakage"]
    plan = planned(tmp_path / "leaky", [f"a={encoder_file}"], given, *leak)
    assert plan.deviations[-1] == f"6 of 6 test images are in {images}"
    assert main(["--output", str(tmp_path / "new"), "--list"]) == 2
    assert "holds no trials: give --config-file and --weights" in capsys.readouterr().err
    assert main(["--output", str(tmp_path / "new")]) == 2
    assert "--config-file and --weights are needed to start" in capsys.readouterr().err

    weights = Path(shutil.copy(encoder_file, tmp_path / "weights.pkl"))
    planned(tmp_path / "old", [f"a={weights}"], given, "--trials", 1)
    again = {"output": "old", "arms": [f"a={weights}"]}
    error = refused("--trials", 1, **again, **{"SOLVER.MAX_ITER": 4})
    assert "another config (- MAX_ITER: 3 + MAX_ITER: 4); give --restart to start anew" in error
    weights.write_bytes(weights.read_bytes() + b" ")
    assert "has changed; give --restart" in refused("--trials", 1, **again)
    planned(tmp_path / "old", [f"a={weights}"], given, "--trials", 1, "--restart")


def test_a_set_that_detectron2_reads_is_compared_and_searched_for_leaks(
    tmp_path: Path,
    scenes: Any,
    encoder_file: Path,
    no_training: None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """As COCO's own names are."""
    name, images = "read_by_detectron2", str(scenes.root / "JPEGImages")
    metadata = {"thing_classes": ["square", "bar"]}
    register_coco_instances(name, metadata, str(scenes.root / "coco.json"), images)
    try:
        given = {**options(scenes, "unused"), "DATASETS.CUSTOM": [], "DATASETS.TRAIN": (name,)}
        given["DATASETS.TEST"] = (name,)
        arms = ["random=random", f"ours={encoder_file}"]
        leak = ["--trials", 1, "--pretraining-data", images]
        assert main(arguments(tmp_path, arms, given, *leak)) == 2
        assert "6 of 6 test images are in" in capsys.readouterr().err
        plan = planned(tmp_path, arms, given, "--trials", 1)
        for number in (1, 2):
            run(tmp_path, plan, number)
        assert main(["--output", str(tmp_path), "--summarize"]) == 0
        results = json.loads((tmp_path / "results.json").read_text())
        assert "these two runs" in results["comparisons"][0]["verdict"].lower()
    finally:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def test_a_test_set_may_lack_a_class(
    tmp_path: Path, scenes: Any, encoder_file: Path, no_training: None
) -> None:
    """Detections of that class are by the model's numbers, also in the comparison."""
    content = json.loads((scenes.root / "coco.json").read_text())
    gone = content["categories"].pop(0)["id"]
    kept = [a for a in content["annotations"] if a["category_id"] != gone]
    test = tmp_path / "test.json"
    test.write_text(json.dumps({**content, "annotations": kept}))
    given = options(scenes, "has_all")
    given["DATASETS.CUSTOM"] = [scenes.coco("has_all"), scenes.coco("lacks_one", test)]
    given["DATASETS.TEST"] = ("lacks_one",)
    output = tmp_path / "out"
    plan = planned(output, ["random=random", f"ours={encoder_file}"], given, "--trials", 1)
    assert len(plan.classes) == 2
    for number in (1, 2):
        run(output, plan, number)
    result = read_result(output, plan.cell(2))
    assert result is not None
    found = json.loads((cell_folder(output, plan.cell(2)) / result["detections"]).read_text())
    assert {entry["category_id"] for entry in found} - {a["category_id"] for a in kept}
    assert main(["--output", str(output), "--summarize"]) == 0
    # Other annotations under the same name are another test set, to a process that reads them.
    forget_data(["lacks_one"])
    test.write_text(json.dumps({**content, "annotations": kept[1:]}))
    assert main(["--output", str(output), "--summarize"]) == 2


def test_what_a_cell_was_started_with_is_not_mixed_with_anything_else(
    tmp_path: Path,
    scenes: Any,
    encoder_file: Path,
    no_training: None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = options(scenes, "not_mixed")
    mine = Path(shutil.copy(encoder_file, tmp_path / "mine.pkl"))
    output = tmp_path / "out"

    def plan_of(*arms: str) -> Plan:
        return planned(output, list(arms), given, "--trials", 1)

    run(output, plan_of(f"a={mine}", "b=random"), 2)
    plan_of(f"a={mine}")
    # The arm b comes back with other weights; its cell is done.
    capsys.readouterr()
    assert main(arguments(output, [f"a={mine}", f"b={encoder_file}"], given, "--trials", 1)) == 2
    assert "b-1 was trained from other weights or with another config" in capsys.readouterr().err
    plan = plan_of(f"a={mine}", "b=random")
    # Weights that change after the plan was made.
    mine.write_bytes(mine.read_bytes() + b" ")
    with pytest.raises(ValueError, match=r"mine.pkl has changed since the trials were started"):
        run(output, plan, 1)
    assert state_of(output, plan.cell(1))[0] is State.FAILED
    # A restart that is refused removes nothing; nor does one while a cell is at work.
    result = cell_folder(output, plan.cell(2)) / "result.json"
    again = arguments(output, ["b=no.pkl"], given, "--trials", 1, "--restart")
    assert main(again) == 2 and result.exists()
    capsys.readouterr()
    again = arguments(output, ["b=random"], given, "--trials", 1, "--restart")
    with held(result.parent) as process:
        assert main(again) == 2 and result.exists()
        assert f"b-1 is worked on by process {process.pid}" in capsys.readouterr().err
    (output / "results.json").write_text("{}")
    assert main(again) == 75 and not result.exists()
    assert not (output / "results.json").exists()


def test_leakage_stays_on_record(
    tmp_path: Path, scenes: Any, encoder_file: Path, no_training: None
) -> None:
    given, images = options(scenes, "stays"), str(scenes.root / "JPEGImages")
    leak = ["--pretraining-data", images, "--allow-leakage"]
    first = planned(tmp_path, [f"a={encoder_file}"], given, "--trials", 1, *leak)
    again = planned(tmp_path, [f"a={encoder_file}"], given, "--trials", 2)
    assert first.deviations == again.deviations
    assert again.deviations[-1].startswith("6 of 6 test images are in")


def test_weights_are_paths_too_from_python(
    tmp_path: Path, scenes: Any, encoder_file: Path, no_training: None
) -> None:
    other = Path(shutil.copy(encoder_file, tmp_path / "other.pkl"))
    with pytest.raises(Preempted):
        d2_transfer.run_trials(
            C4,
            {"one": encoder_file, "repeated": [encoder_file, other], "random": "random"},
            output=tmp_path / "out",
            trials=2,
            num_gpus=0,
            **options(scenes, "paths"),
        )
    plan = read_plan(tmp_path / "out")
    assert plan is not None
    assert plan.arms[0].weights == (str(encoder_file),)
    assert plan.arms[1].weights == (str(encoder_file), str(other))


def test_the_array_script_runs_a_cell_and_queues_it_again(tmp_path: Path) -> None:
    """By bash, with stand-ins for the two commands that need a cluster."""
    script = array_script(
        tmp_path, [sys.executable, "-c", "import sys; print(sys.argv[1:]); sys.exit(75)"], [3, 5],
        at_once=2, exit_code=75,
    )  # fmt: skip
    assert "#SBATCH --array=3,5%2\n" in script and "#SBATCH --requeue\n" in script
    for name, content in (("srun", 'shift; exec "$@"'), ("scontrol", 'echo "scontrol $*"')):
        path = tmp_path / name
        path.write_text(f"#!/bin/bash\n{content}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    (tmp_path / "array.sh").write_text(script)
    env = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    env |= {"SLURM_ARRAY_JOB_ID": "71", "SLURM_ARRAY_TASK_ID": "5", "SLURM_JOB_ID": "71"}
    command = ["bash", str(tmp_path / "array.sh")]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.stdout == "['--cell', '5']\nscontrol requeue 71_5\n" and done.returncode == 75
    (tmp_path / "array.sh").write_text(script.replace("sys.exit(75)", "sys.exit(2)"))
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.stdout == "['--cell', '5']\n" and done.returncode == 2


def test_slurm_needs_sbatch(
    tmp_path: Path,
    scenes: Any,
    encoder_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    command = arguments(tmp_path / "out", [f"a={encoder_file}"], options(scenes, "slurm"))
    assert main([*command[:2], "--launcher", "slurm", *command[2:]]) == 2
    assert "launcher slurm: this machine has no sbatch" in capsys.readouterr().err


def test_weights_are_converted_once(
    tmp_path: Path, scenes: Any, checkpoint_file: Path, no_training: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    arms, given = [f"a={checkpoint_file}"], options(scenes, "converted_once")
    first = planned(tmp_path, arms, given, "--trials", 1)
    monkeypatch.setattr(prepare, "convert", None)
    assert planned(tmp_path, arms, given, "--trials", 2).files == first.files


def cells_at_work(output: Path) -> list[int]:
    """Process ids of the cells that a runner has started."""
    pattern = f"--output {output} --num-gpus 0 --cell"
    found = subprocess.run(["pgrep", "-f", "--", pattern], capture_output=True, text=True)
    return [int(pid) for pid in found.stdout.split()]


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_runner_is_killed_and_goes_on(tmp_path: Path, scenes: Any, encoder_file: Path) -> None:
    """kill -9 at five random moments: of the runner with its cell, or of the cell alone."""
    given = options(scenes, "killed", **{"SOLVER.CHECKPOINT_PERIOD": 1, "SOLVER.MAX_ITER": 6})
    arms = ["random=random", f"a={encoder_file}"]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    tool = [sys.executable, "-m", "d2_transfer.commands.trials"]
    env = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    straight = [*tool, *arguments(whole, arms, given, "--trials", 2)]
    start = time.monotonic()
    assert subprocess.run(straight, cwd=REPOSITORY, env=env).returncode == 0
    duration = time.monotonic() - start
    rng = random.Random(1)
    command = [*tool, *arguments(killed, arms, given, "--trials", 2)]
    kills, runner = [], None
    while len(kills) < 5:
        if runner is None or runner.poll() is not None:
            runner = subprocess.Popen(command, cwd=REPOSITORY, env=env)
        # The first at any moment, the others while a cell works. All five together are shorter
        # than the whole, so there is always something to kill.
        while kills and runner.poll() is None and not cells_at_work(killed):
            time.sleep(0.1)
        time.sleep(duration * rng.uniform(0, 0.15))
        assert runner.poll() != 0, f"done after {kills}"
        cells = cells_at_work(killed)
        if len(kills) % 2 == 0 or not cells:
            runner.kill()
            runner.wait()
        for pid in cells:  # after the runner, which would start the next one
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        kills.append(f"{'cell' if runner.poll() is None else 'runner'}, {len(cells)} at work")
    assert any(kill.endswith("1 at work") for kill in kills), kills
    print(f"{duration:.0f} s without kills; killed: {'; '.join(kills)}")
    runner.wait()
    assert subprocess.run(command, cwd=REPOSITORY, env=env).returncode == 0
    both = [json.loads((output / "results.json").read_text()) for output in (whole, killed)]
    for results in both:
        del results["hours"]
    assert both[0] == both[1]
    csv = [(output / "results.csv").read_text() for output in (whole, killed)]
    assert csv[0] == csv[1]
