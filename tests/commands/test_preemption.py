"""A run that receives a stop signal in the middle of an epoch, and resumes: SLURM's preemption."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from repository import REPOSITORY

from cwrgp.cli import load_config
from cwrgp.commands.pretrain import main
from cwrgp.commands.pretraining_run import run_pretraining
from cwrgp.config import get_cfg
from cwrgp.preemption import Preempted, StopRequest
from cwrgp.trackers.jsonl import read_metrics

QUICK = REPOSITORY / "configs/quick/pretrain_cwrgp_r18.yaml"
# Four iterations an epoch, no checkpoint until the end.
OPTS = ["SOLVER.BATCH_SIZE", "32", "SOLVER.EPOCHS", "2", "METHOD.CWRGP.SUBBATCH_SIZE", "16"]
OPTS += ["SOLVER.OPTIMIZER", "sgd", "SOLVER.BASE_LR", "0.01"]
OPTS += ["CHECKPOINT_PERIOD", "0", "EVAL.PERIOD", "0"]


def command(image_folder, output, *flags, opts=(), processes=1):
    start = [sys.executable]
    if processes > 1:
        start += ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    start += ["tools/pretrain.py", "--config-file", str(QUICK), *flags]
    return [*start, "DATA.ROOT", str(image_folder), "OUTPUT_DIR", str(output), *OPTS, *opts]


def environment():
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def run(*arguments, **options):
    done = subprocess.run(
        command(*arguments, **options), cwd=REPOSITORY, env=environment(), capture_output=True,
        text=True, timeout=540,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]


def wait_for_record(process, output, iteration):
    deadline = time.monotonic() + 240
    while not any(r["iteration"] >= iteration for r in read_metrics(output / "metrics.json")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)


def final(output):
    return torch.load(output / "model_final.pth", weights_only=True)


def assert_same_model(a, b):
    for name, tensor in a["model"].items():
        assert torch.equal(tensor, b["model"][name]), name
    assert a["iteration"] == b["iteration"]


@pytest.fixture(scope="module")
def whole(image_folder, tmp_path_factory):
    """The last checkpoint of a run that nobody interrupted."""
    output = tmp_path_factory.mktemp("whole")
    opts = ["DATA.NUM_WORKERS", "1"]
    assert main(command(image_folder, output, "--resume-or-start", opts=opts)[2:]) == 0
    return final(output)


# A scheduler signals the process, or its whole group with the workers that load images.
@pytest.mark.parametrize(
    ("tell", "number"), [(os.killpg, signal.SIGTERM), (os.kill, signal.SIGUSR1)]
)
def test_told_to_stop_in_the_middle_of_an_epoch(image_folder, whole, tmp_path, tell, number):
    process = subprocess.Popen(
        command(image_folder, tmp_path / "run", opts=["DATA.NUM_WORKERS", "2"]), cwd=REPOSITORY,
        env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    wait_for_record(process, tmp_path / "run", 1)
    tell(process.pid, number)
    _, errors = process.communicate(timeout=240)
    assert process.returncode == 75, errors
    assert "stop requested: saved after iteration" in errors and "Traceback" not in errors
    last = (tmp_path / "run" / "last_checkpoint").read_text()
    assert last.startswith("model_") and last != "model_final.pth"
    # A requeued job starts or goes on by the same command; here with other workers.
    opts = ["DATA.NUM_WORKERS", "0"]
    assert main(command(image_folder, tmp_path / "run", "--resume-or-start", opts=opts)[2:]) == 0
    assert_same_model(final(tmp_path / "run"), whole)


DEFECT = """
import cwrgp.commands.pretraining_run
from cwrgp.cli import load_config
from cwrgp.config import get_cfg

def defect(method, optimizer, batches, **rest):
    next(batches)
    raise RuntimeError("a defect")

cwrgp.commands.pretraining_run.train = defect
cfg = get_cfg()
load_config(cfg, {config!r}, ["DATA.ROOT", {images!r}, "OUTPUT_DIR", {output!r}])
cwrgp.commands.pretraining_run.run_pretraining(cfg)
"""


def test_a_defect_ends_the_run_although_workers_ignore_signals(image_folder, tmp_path, run_tool):
    script = DEFECT.format(config=str(QUICK), images=str(image_folder), output=str(tmp_path))
    done = run_tool("-c", script)
    assert done.returncode == 1 and done.stderr.endswith("RuntimeError: a defect\n")


def test_told_before_the_first_step_there_is_nothing_to_save(image_folder, tmp_path):
    cfg = get_cfg()
    opts = ["DATA.ROOT", str(image_folder), "OUTPUT_DIR", str(tmp_path / "run"), *OPTS]
    load_config(cfg, str(QUICK), opts)
    stop = StopRequest()
    stop.handle(signal.SIGTERM, None)
    with pytest.raises(Preempted, match="stop requested before iteration 1"):
        run_pretraining(cfg, stop=stop)
    assert list((tmp_path / "run").glob("*.pth")) == []


@pytest.mark.dist
@pytest.mark.slow
def test_one_of_two_processes_is_told_and_both_leave(image_folder, tmp_path):
    process = subprocess.Popen(
        command(image_folder, tmp_path / "run", processes=2), cwd=REPOSITORY, env=environment(),
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    wait_for_record(process, tmp_path / "run", 1)
    listing = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(process.pid)], capture_output=True, text=True, check=True
    )
    os.kill(int(listing.stdout.split()[-1]), signal.SIGTERM)
    process.wait(timeout=240)
    assert (tmp_path / "run" / "last_checkpoint").read_text() != "model_final.pth"
    run(image_folder, tmp_path / "run", "--resume", opts=["DATA.NUM_WORKERS", "0"], processes=2)
    run(image_folder, tmp_path / "whole", processes=2)
    assert_same_model(final(tmp_path / "run"), final(tmp_path / "whole"))
