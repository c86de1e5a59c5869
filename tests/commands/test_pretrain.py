"""cwrgp-pretrain as a user meets it: a run, a kill, a resume, two processes."""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
import yaml
from images import write_images
from quick_run import QUICK, make_cfg
from repository import REPOSITORY

from cwrgp.commands.pretraining_run import run_pretraining
from cwrgp.trackers.jsonl import read_metrics

LEAVE_ONE_OUT = "knn_leave_one_out/top1"


def assert_same(a, b, path="state"):
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b), path
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), path
        for key in a:
            assert_same(a[key], b[key], f"{path}.{key}")
    elif isinstance(a, list):
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_same(x, y, f"{path}[{i}]")
    else:
        assert a == b, path


@pytest.fixture(scope="module")
def finished_run(image_folder, tmp_path_factory):
    """A run that nobody disturbed."""
    output = tmp_path_factory.mktemp("run")
    run_pretraining(make_cfg(image_folder, output))
    return output


def test_a_run_leaves_what_it_promises(finished_run):
    names = {path.name for path in finished_run.iterdir()}
    assert {"config.yaml", "log.txt", "metrics.json", "last_checkpoint", "model_final.pth"} <= names
    assert any(name.startswith("events.out.tfevents") for name in names)
    assert (finished_run / "last_checkpoint").read_text() == "model_final.pth"
    records = read_metrics(finished_run / "metrics.json")
    losses = [r for r in records if "total_loss" in r]
    assert [r["iteration"] for r in losses] == list(range(8))
    assert all(0 < r["total_loss"] < 4 for r in losses)
    assert {"lr", "time", "data_time", "eta_seconds", "loss_cwrgp"} <= losses[0].keys()
    assert [r["iteration"] for r in records if LEAVE_ONE_OUT in r] == [0, 1, 3, 5, 7]
    assert not any("knn/top1" in r for r in records)  # the images have no held-out part
    assert yaml.safe_load((finished_run / "config.yaml").read_text())["SOLVER"]["BATCH_SIZE"] == 64
    assert "eta: " in (finished_run / "log.txt").read_text()
    state = torch.load(finished_run / "model_final.pth", weights_only=True)
    assert state["iteration"] == 7 and "encoder.layer4.1.bn2.weight" in state["model"]


def test_killed_and_resumed_is_bit_exact(image_folder, finished_run, tmp_path):
    command = [sys.executable, "tools/pretrain.py", "--config-file", QUICK]
    opts = ["DATA.ROOT", image_folder, "OUTPUT_DIR", tmp_path]
    process = subprocess.Popen(
        [*map(str, command), *map(str, opts)], cwd=REPOSITORY, stdout=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 240
    while not (tmp_path / "model_0000003.pth").exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "model_final.pth").exists()

    # Another number of workers must not matter.
    run_pretraining(make_cfg(image_folder, tmp_path, "DATA.NUM_WORKERS", 0), resume=True)
    expected = torch.load(finished_run / "model_final.pth", weights_only=True)
    got = torch.load(tmp_path / "model_final.pth", weights_only=True)
    for part in ("model", "optimizer", "iteration"):
        assert_same(got[part], expected[part], part)
    keys = ("iteration", "total_loss", "lr", LEAVE_ONE_OUT)
    history, resumed = (
        [{k: r[k] for k in keys if k in r} for r in read_metrics(run / "metrics.json")]
        for run in (finished_run, tmp_path)
    )
    assert resumed == history


def test_another_seed_is_another_run(image_folder, finished_run, tmp_path):
    run_pretraining(
        make_cfg(image_folder, tmp_path, "SEED", 1, "SOLVER.EPOCHS", 2, "EVAL.PERIOD", 0)
    )
    ours = read_metrics(tmp_path / "metrics.json")[0]["total_loss"]
    theirs = [r for r in read_metrics(finished_run / "metrics.json") if "total_loss" in r]
    assert ours != theirs[0]["total_loss"]


def test_images_beside_the_class_folders_leave_the_probe_as_it_is(tmp_path):
    for split in ("train", "val"):
        for seed, name in enumerate("ab"):
            write_images(tmp_path / "images" / split / name, 32, seed=seed)
    found = []
    for run in ("without", "with"):
        cfg = make_cfg(tmp_path / "images", tmp_path / run, "SOLVER.EPOCHS", 3)
        run_pretraining(cfg)
        (first, *_) = read_metrics(tmp_path / run / "metrics.json")
        found.append(first)
        for split in ("train", "val"):
            write_images(tmp_path / "images" / split, 1)
    assert found[0].keys() == {"iteration", "knn/top1"} and found[0] == found[1]
    log = (tmp_path / "with" / "log.txt").read_text()
    for split in ("train", "val"):
        name = tmp_path / "images" / split / "000.png"
        assert log.count(f"1 of the 65 images of the probe's {split}".replace("val", "test")) == 1
        assert log.count(f"omitted; the first is {name}\n") == 1


def test_without_evaluations_the_images_of_the_probe_do_not_matter(tmp_path):
    write_images(tmp_path / "images" / "train", 64)
    write_images(tmp_path / "images" / "val", 1)  # no labels
    opts = ["EVAL.PERIOD", 0, "EVAL.KNN_K", 10**6, "SOLVER.EPOCHS", 3]
    assert run_pretraining(make_cfg(tmp_path / "images", tmp_path / "run", *opts)) == {}
    log = (tmp_path / "run" / "log.txt").read_text()
    assert "EVAL.KNN_K" in log.partition("without effect in this run: ")[2].partition("\n")[0]
    assert not logging.getLogger("cwrgp").handlers  # a later run does not write into this log


def test_the_state_before_the_loss_that_is_not_finite_is_kept(image_folder, tmp_path):
    opts = ["SOLVER.OPTIMIZER", "sgd", "SOLVER.BASE_LR", 1e30, "LOG_PERIOD", 1]
    with pytest.raises(FloatingPointError, match="holds the state of iteration 1"):
        run_pretraining(make_cfg(image_folder, tmp_path, *opts))
    state = torch.load(tmp_path / "diagnostic.pth", weights_only=True)
    weights = [v for k, v in state["model"].items() if k.endswith("weight")]
    assert all(weight.isfinite().all() for weight in weights)


def test_a_run_on_some_of_the_images(image_folder, tmp_path):
    opts = ["DATA.MAX_IMAGES", 70, "SOLVER.EPOCHS", 3, "EVAL.PERIOD", 0]
    run_pretraining(make_cfg(image_folder, tmp_path, *opts))
    assert "cwrgp on 1 x cpu" in (log := (tmp_path / "log.txt").read_text())
    assert ", 70 images," in log and "iterations 1 to 3" in log


def test_fp32_and_unlabelled_images(tmp_path):
    write_images(tmp_path / "images", 64)
    opts = ["SOLVER.AMP.ENABLED", "False", "SOLVER.EPOCHS", 3, "DATA.NUM_VIEWS", 3]
    assert run_pretraining(make_cfg(tmp_path / "images", tmp_path / "run", *opts)) == {}
    assert "cpu in fp32," in (tmp_path / "run" / "log.txt").read_text()


def test_a_finished_run_is_not_overwritten_and_can_be_evaluated(image_folder, finished_run):
    with pytest.raises(ValueError, match="holds a run already; add resume=True, or"):
        run_pretraining(make_cfg(image_folder, finished_run))
    last = [r for r in read_metrics(finished_run / "metrics.json") if LEAVE_ONE_OUT in r][-1]
    result = run_pretraining(make_cfg(image_folder, finished_run), eval_only=True)
    assert result == {LEAVE_ONE_OUT: last[LEAVE_ONE_OUT]}
    before = (finished_run / "model_final.pth").stat().st_mtime_ns
    run_pretraining(make_cfg(image_folder, finished_run), resume=True)  # nothing is left to do
    assert (finished_run / "model_final.pth").stat().st_mtime_ns == before


def test_a_resume_that_is_refused_leaves_the_configuration(image_folder, finished_run, tmp_path):
    shutil.copytree(finished_run, tmp_path / "run")
    before = (tmp_path / "run" / "config.yaml").read_text()
    for opts, message in (
        (["MODEL.PROJECTOR.OUT", 64, "METHOD.CWRGP.NUM_GROUPS", 1], "does not fit this config"),
        (["SEED", 1], "does not fit this configuration: SEED was 0 and is now 1"),
        (["DATA.MAX_IMAGES", 120], "its run had 128 images and this one has 120; give it the same"),
        (["SOLVER.EPOCHS", 2], "the last checkpoint is of iteration 8, SOLVER.EPOCHS 2 ends at 4"),
    ):
        with pytest.raises(ValueError, match=message):
            run_pretraining(make_cfg(image_folder, tmp_path / "run", *opts), resume=True)
    assert (tmp_path / "run" / "config.yaml").read_text() == before


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ({"config": None}, "is not a checkpoint of a pretraining run: it has no 'config'"),
        ({"config": "DATA: {}"}, "is not a checkpoint .*: its config does not have the sections"),
        ({"iteration": "x"}, "is not a checkpoint of a pretraining run: it has no 'iteration'"),
        ({"optimizer": []}, "does not fit this configuration"),
    ],
)
def test_a_checkpoint_with_other_contents_is_refused(
    image_folder, finished_run, tmp_path, damage, message
):
    shutil.copytree(finished_run, tmp_path / "run")
    path = tmp_path / "run" / "model_final.pth"
    state = torch.load(path, weights_only=True) | damage
    if damage == {"config": None}:
        del state["config"]
    torch.save(state, path)
    with pytest.raises(ValueError, match=f"last checkpoint {message}"):
        run_pretraining(make_cfg(image_folder, tmp_path / "run"), resume=True)


def test_a_loss_that_is_not_finite_stops_the_run(image_folder, tmp_path):
    opts = ["SOLVER.OPTIMIZER", "sgd", "SOLVER.BASE_LR", 1e30]
    message = r"the loss is nan at iteration \d; diagnostic.pth .* smallest eigenvalue .* \d.*EPS"
    with pytest.raises(FloatingPointError, match=message) as error:
        run_pretraining(make_cfg(image_folder, tmp_path, *opts))
    assert not (tmp_path / "model_final.pth").exists()
    state = torch.load(tmp_path / "diagnostic.pth", weights_only=True)
    assert f"at iteration {state['iteration']};" in str(error.value)
    assert [view.dtype for view in state["views"]] == [torch.uint8] * 2


@pytest.mark.dist
def test_two_processes_under_torchrun(image_folder, tmp_path):
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc_per_node",
        "2",
    ]
    command += ["tools/pretrain.py", "--config-file", str(QUICK), "DATA.ROOT", str(image_folder)]
    command += ["OUTPUT_DIR", str(tmp_path), "SOLVER.EPOCHS", "3", "DATA.NUM_WORKERS", "0"]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, cwd=REPOSITORY, env=env, capture_output=True, text=True, timeout=540
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "2 x cpu" in done.stdout and done.stdout.count("before training") == 1
    lines = (tmp_path / "metrics.json").read_text().splitlines()
    assert json.loads(lines[-1])["iteration"] == 5
    assert (tmp_path / "model_final.pth").exists()
