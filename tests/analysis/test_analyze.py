"""The command on real runs: experiments, kill and resume, and what is refused."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from analysis_pages import check_page, refused
from analysis_results import result
from held_folders import held
from images import write_images

from cwrgp.analysis.figures import figures
from cwrgp.builders.experiments import EXPERIMENTS, arm_config, experiment_arms
from cwrgp.commands.analyze import main
from cwrgp.commands.experiment import run_name, run_one
from cwrgp.commands.experiment_plan import CONFIG, changes, read_plan
from cwrgp.config import get_cfg
from cwrgp.config_files import find_config, merge_file, merge_values

SMALL = {
    "DATA.IMAGE_SIZE": 16,
    "DATA.PROBE_RESIZE": 16,
    "DATA.MAX_IMAGES": 256,
    "SOLVER.EPOCHS": 2,
    "SOLVER.AMP.ENABLED": False,
    "MODEL.PROJECTOR.HIDDEN": 64,
    "EVAL.PERIOD": 2,
    "EVAL.MAX_IMAGES": 64,
    "LOG_PERIOD": 1,
}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """600 images of 16 px in two classes, held out as well: more than a ResNet-18 has channels."""
    root = tmp_path_factory.mktemp("photos")
    for seed, split in enumerate(("train", "test")):
        for number, name in enumerate(("cat", "dog")):
            write_images(root / split / name, 300, seed=2 * seed + number, side=16)
    return root


def arguments(experiment: str, photos: Path, output: Path, *flags: Any, **keys: Any) -> list[str]:
    pairs = [part for pair in {**SMALL, **keys}.items() for part in pair]
    words = ("--experiment", experiment, "--data", photos, "--output", output, *flags)
    return [str(word) for word in (*words, *pairs)]


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs, one after the other; a process of its own takes seconds to start."""

    def here(cells: Any, **_: Any) -> None:
        for cell in cells:
            folder, _, name = cell.command[-3:]
            run_one(Path(folder), name)

    monkeypatch.setattr("cwrgp.commands.experiment.run_cells", here)


@pytest.fixture
def two_arms(monkeypatch: pytest.MonkeyPatch, in_this_process: None) -> None:
    """Of the experiment "groups"."""
    monkeypatch.setitem(EXPERIMENTS, "groups", lambda arms=EXPERIMENTS["groups"]: arms()[1:3])


def test_an_experiment_ends_in_files_that_agree(
    photos: Path, tmp_path: Path, two_arms: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments("groups", photos, tmp_path)) == 0
    assert "report.html" in capsys.readouterr().out
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["preview"] and results["seeds"] == [0]
    assert [(arm["series"], arm["x"]) for arm in results["arms"]] == [("fixed", 2), ("random", 2)]
    for arm in results["arms"]:
        values = {name: value["mean"] for name, value in arm["values"].items()}
        assert 0 <= values["knn"] <= 100 and 1 <= values["embedding/effective_rank"] <= 512
        assert -1 <= values["embedding/negative_cosine"] <= 1
        assert values["embedding/alignment"] == pytest.approx(
            2 - 2 * values["embedding/positive_cosine"]
        )
        assert arm["width"] == {"encoder": 512, "embedding": 512}
        assert len(arm["spectra"]["encoder"]) == 512
        assert arm["curves"]["total_loss"]["x"] == [1, 2, 3, 4]
    random, fixed = (arm["curves"]["total_loss"]["y"] for arm in results["arms"])
    assert random != fixed
    page = check_page(tmp_path)
    (command,) = page.texts["pre"]
    assert command.startswith(f"cwrgp-analyze --experiment groups --data {photos} --seeds 1 --out")
    assert "SOLVER.EPOCHS 2" in command and "DATA.ROOT" not in command and "SEED " not in command
    assert "DATA.NAME" not in command
    assert "Preview." in page.texts["b"] and len(page.labels) == 3
    # The figures are drawn from results.json alone: every number of theirs is in it.
    drawn = figures(results, tmp_path / "again")
    assert {f.name for f in (tmp_path / "again").iterdir()} == {
        f.name for f in (tmp_path / "figures").iterdir()
    }
    for svg in (tmp_path / "again").glob("*.svg"):
        assert svg.read_bytes() == (tmp_path / "figures" / svg.name).read_bytes()
    assert [figure.title for figure in drawn] == page.texts["h3"]
    shown = {row[0]: row[1] for row in page.rows[1:]}
    for arm in results["arms"]:
        assert shown[f"{arm['series']}, 2"] == f"{arm['values']['knn']['mean']:.1f}"


@pytest.mark.slow
def test_more_seeds_keep_what_is_done(photos: Path, tmp_path: Path, two_arms: None) -> None:
    assert main(arguments("groups", photos, tmp_path)) == 0
    kept = (tmp_path / "runs/fixed-2-seed0/result.json").read_text()
    assert main(arguments("groups", photos, tmp_path, "--seeds", 2)) == 0
    assert (tmp_path / "runs/fixed-2-seed0/result.json").read_text() == kept
    results = json.loads((tmp_path / "results.json").read_text())
    knn = results["arms"][0]["values"]["knn"]
    assert len(knn["runs"]) == 2 and knn["low"] <= knn["mean"] <= knn["high"]
    assert "Preview." not in check_page(tmp_path).texts["b"]


@pytest.mark.parametrize("root", ["train", ""])
def test_the_page_says_which_images_are_measured(
    root: str, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def made_up(cells: Any, **_: Any) -> None:
        for cell in cells:
            cell.folder.mkdir(parents=True)
            (cell.folder / "result.json").write_text(json.dumps(result(None, 3.0)))

    monkeypatch.setattr("cwrgp.commands.experiment.run_cells", made_up)
    keys = {"DATA.MAX_IMAGES": 5000, "EVAL.KNN_K": 3}
    assert main(arguments("groups", photos / root, tmp_path, **keys)) == 0
    results = json.loads((tmp_path / "results.json").read_text())
    which = "600 of the training images" if root else "600, held out"
    assert results["settings"]["measured images"] == which
    assert results["settings"]["training images"] == 600  # as many as there are
    probe = "training images, each left out in turn" if root else "training and test images"
    assert results["settings"]["k-NN"] == f"k = 3, at most 64 {probe}"
    assert f"the measured images ({which})" in " ".join(check_page(tmp_path).texts["p"])


def test_names_of_runs_are_unique() -> None:
    for experiment in EXPERIMENTS:
        names = [run_name(arm, 0) for arm in experiment_arms(experiment)]
        assert len(set(names)) == len(names) > 3
        assert all(re.fullmatch(r"[\w.-]+", name) for name in names)


@pytest.mark.slow
@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_runs(
    experiment: str, photos: Path, tmp_path: Path, in_this_process: None
) -> None:
    keys = {"SOLVER.EPOCHS": 1, "SOLVER.WARMUP_EPOCHS": 0.0, "SOLVER.WARMUP_ITERS": 0}
    assert main(arguments(experiment, photos, tmp_path, **keys)) == 0
    results = json.loads((tmp_path / "results.json").read_text())
    assert len(results["arms"]) == len(experiment_arms(experiment))
    assert results["findings"]
    check_page(tmp_path)
    if experiment == "whitening":
        moved = [a["series"] for a in results["arms"] if "monitor/target_volatility" in a["values"]]
        assert moved == ["PCA", "ZCA", "Cholesky", "CW-RGP"]


def without_times(folder: Path) -> dict[str, Any]:
    results: dict[str, Any] = json.loads((folder / "results.json").read_text())
    del results["hours"]
    return results


@pytest.mark.slow
def test_a_killed_command_goes_on_to_the_same_results(
    photos: Path, tmp_path: Path, run_tool: Any
) -> None:
    keys = {"CHECKPOINT_PERIOD": 1}
    words = [arguments("penalty", photos, tmp_path / name, "--jobs", 1, **keys) for name in "ab"]
    assert run_tool("tools/analyze.py", *words[0], OMP_NUM_THREADS="1").returncode == 0
    command = [sys.executable, "tools/analyze.py", *words[1]]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    folder = tmp_path / "b/runs/cw-rgp-0.01-seed0"

    def holder() -> int | None:
        text = (folder / "lock.json").read_text() if (folder / "lock.json").exists() else ""
        return json.loads(text)["pid"] if text.endswith("}") else None

    # Killed in the middle of the second run, its own process as well.
    process = subprocess.Popen(command, env=env)
    while not (folder / "run/last_checkpoint").exists():
        assert process.poll() is None
        time.sleep(0.05)
    killed = holder()
    assert killed is not None
    process.kill()
    os.kill(killed, signal.SIGKILL)
    process.wait()
    assert not (folder / "result.json").exists()
    # Asked to stop as soon as this run goes on.
    process = subprocess.Popen(command, env=env)
    while holder() in (None, killed):
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 75
    assert not (folder / "result.json").exists()
    partial = json.loads((tmp_path / "b/results.json").read_text())
    assert not partial["complete"] and len(partial["arms"]) == 1 and not partial["findings"]
    assert run_tool("tools/analyze.py", *words[1], OMP_NUM_THREADS="1").returncode == 0
    a, b = (without_times(tmp_path / name) for name in "ab")
    assert a == b


def test_experiments_that_cannot_work_are_refused(
    photos: Path,
    tmp_path: Path,
    two_arms: None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = tmp_path / "out"
    error = refused(arguments("whitning", photos, output), capsys)
    assert "--experiment 'whitning' is unknown; did you mean whitening?" in error
    error = refused(arguments("groups", photos, output, "--seeds", 0), capsys)
    assert "--seeds 0 is below 1" in error
    assert "--jobs 0 is below 1" in refused(
        arguments("groups", photos, output, "--jobs", 0), capsys
    )
    for name in ("cat", "dog"):
        write_images(tmp_path / "few/train" / name, 150, side=16)
        write_images(tmp_path / "few/test" / name, 20, side=16)
    error = refused(arguments("groups", tmp_path / "few", output), capsys)
    assert "has 40 images to measure; a covariance of 512 dimensions needs more than 512" in error
    for key, value in (("SEED", 7), ("METHOD.NAME", "simclr"), ("METHOD.CWRGP.NUM_GROUPS", 3)):
        error = refused(arguments("groups", photos, output, **{key: value}), capsys)
        assert f"experiment 'groups' sets {key} itself: omit it" in error
    error = refused(arguments("groups", photos, output, **{"SOLVER.EPOCHS": 0}), capsys)
    assert "SOLVER.EPOCHS 0 is not for experiments; give a number of epochs" in error
    key = {"MONITOR.TARGET_VOLATILITY": True}
    error = refused(arguments("batch-size", photos, output, **key), capsys)
    assert "MONITOR.TARGET_VOLATILITY is for methods that whiten" in error
    key = {"MODEL.WEIGHTS": tmp_path / "none.pth"}
    assert "MODEL.WEIGHTS" in refused(arguments("groups", photos, output, **key), capsys)
    for option in (["--prefix", "a"], ["--source", "moco"], ["--branch", "momentum"]):
        error = refused(arguments("groups", photos, output, *option), capsys)
        assert f"--{option[0][2:]} {option[1]!r} belongs to weights: omit it" in error
    error = refused(arguments("groups", photos, output, "--unsafe-load"), capsys)
    assert "unsafe-load belongs to weights: omit it" in error
    error = refused(arguments("groups", photos, output, **{"SOLVER.EPOCS": 3}), capsys)
    assert "unknown config key SOLVER.EPOCS" in error
    error = refused(arguments("groups", tmp_path / "none", output), capsys)
    assert "DATA.ROOT" in error and "none" in error
    assert not output.exists()
    assert "--output is missing" in refused(["--experiment", "groups", "--data", "x"], capsys)
    assert "--data is missing" in refused(["--experiment", "groups", "--output", "x"], capsys)
    error = refused(["--output", str(output), "--run", "a"], capsys)
    assert "holds no experiment" in error


def test_a_folder_holds_one_experiment(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr("cwrgp.commands.experiment.run_cells", lambda *_, **__: None)
    assert main(arguments("groups", photos, tmp_path)) == 0
    error = refused(arguments("penalty", photos, tmp_path), capsys)
    assert f"{tmp_path} holds the experiment 'groups'; give --restart" in error
    error = refused(arguments("groups", photos, tmp_path, **{"SOLVER.EPOCHS": 3}), capsys)
    assert "holds the experiment 'groups' with another config; give --restart" in error
    for name in ("results.json", "report.html"):
        (tmp_path / name).write_text("of the groups")
    assert main(arguments("penalty", photos, tmp_path, "--restart")) == 0
    assert not (tmp_path / "results.json").exists() and not (tmp_path / "report.html").exists()
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights/results.json").write_text("{}")
    error = refused(arguments("penalty", photos, tmp_path / "weights"), capsys)
    assert "weights holds another analysis; choose another folder" in error
    (tmp_path / "mine/runs").mkdir(parents=True)
    assert main(arguments("penalty", photos, tmp_path / "mine", "--restart")) == 0
    assert (tmp_path / "mine/runs").is_dir()  # of a folder without an experiment
    weights = ["--weights", "a.pth", "--data", str(photos), "--output", str(tmp_path)]
    assert f"{tmp_path} holds other results; choose another folder" in refused(weights, capsys)
    for other in ("{}", "[]", "{", '{"kind": "trials"}'):
        (tmp_path / "weights/results.json").write_text(other)
        error = refused([*weights[:-1], str(tmp_path / "weights")], capsys)
        assert "weights holds other results; choose another folder" in error
    error = refused(["--output", str(tmp_path), "--run", "a"], capsys)
    assert "run 'a' is unknown; choose one of cw-rgp-0-seed0" in error
    plan = tmp_path / "plan.json"
    plan.write_text(json.dumps(json.loads(plan.read_text()) | {"version": 0}))
    error = refused(arguments("penalty", photos, tmp_path), capsys)
    assert f"{plan} is of another version; give --restart" in error
    for foreign in ("{}", "[]", "{", '{"version": 2, "weights": {}}'):  # the last of trials
        plan.write_text(foreign)
        (tmp_path / "results.json").write_text("of trials")
        for more in ((), ("--restart",)):
            error = refused(arguments("penalty", photos, tmp_path, *more), capsys)
            assert f"{plan} is damaged, or not of an experiment; choose another folder" in error
        assert plan.read_text() == foreign
        assert (tmp_path / "results.json").read_text() == "of trials"


def test_the_command_on_the_page_goes_on_in_its_folder(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though it names no file: what the runs set in any case is left out."""
    monkeypatch.setattr("cwrgp.commands.experiment.run_cells", lambda *_, **__: None)
    changed = {"SEED": 7, "SOLVER": {"BASE_LR": 0.01}, "METHOD": {"CWRGP": {"NUM_GROUPS": 2}}}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump({"_BASE_": CONFIG, **changed}))
    words = arguments("groups", photos, tmp_path / "out")
    assert main([*words[:6], "--config-file", str(tmp_path / "mine.yaml"), *words[6:]]) == 0
    plan = read_plan(tmp_path / "out")
    assert plan is not None
    before = (tmp_path / "out/plan.json").read_text()
    pairs = changes(plan)
    assert pairs[pairs.index("SOLVER.BASE_LR") + 1] == "0.01"
    assert not {"SEED", "METHOD.CWRGP.NUM_GROUPS"} & {*pairs}
    command = ["--experiment", "groups", "--data", str(photos), "--output", str(tmp_path / "out")]
    assert main([*command, *pairs]) == 0
    assert (tmp_path / "out/plan.json").read_text() == before


def test_batch_whitening_has_an_eps_that_suits_its_batch() -> None:
    base = get_cfg()
    merge_file(base, find_config(CONFIG))
    merge_values(base, {"METHOD.CWRGP.SUBBATCH_SIZE": 32})
    arms = {arm.series: arm for arm in experiment_arms("whitening")}

    def eps(series: str, **keys: Any) -> float:
        cfg = base.clone()
        merge_values(cfg, {key.replace("__", "."): value for key, value in keys.items()})
        return float(arm_config(cfg, arms[series], 0, "x").METHOD.WHITENING.EPS)

    for series in ("PCA", "ZCA", "Cholesky"):
        assert eps(series) == 1e-6
        assert eps(series, SOLVER__BATCH_SIZE=64) == 0.01
        assert eps(series, SOLVER__BATCH_SIZE=256, SOLVER__ACCUMULATE=4) == 0.01
        assert eps(series, METHOD__WHITENING__EPS=0.001) == 0.001
    assert eps("BN") == eps("CW-RGP") == 0
    sizes = [arm for arm in experiment_arms("batch-size") if arm.series == "batch whitening"]
    assert {arm_config(base, arm, 0, "x").METHOD.WHITENING.EPS for arm in sizes} == {0.01}


def test_one_command_at_a_time_works_in_a_folder(
    photos: Path, tmp_path: Path, two_arms: None, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    command = arguments("groups", photos, tmp_path)
    with held(tmp_path) as process:  # as the command does
        error = refused([*command[:6], "--seeds", "3", *command[6:]], capsys)
        assert not (tmp_path / "plan.json").exists()
        assert f"{tmp_path} is worked on by process {process.pid}" in error
    with held(tmp_path / "runs/random-2-seed0") as process:
        for again in (command, arguments("groups", photos, tmp_path, "--restart")):
            error = refused(again, capsys)
            assert f"random-2-seed0 is worked on by process {process.pid}" in error
            assert "wait until it is done, or stop it" in error
