"""A fine-tuning that is told to stop, or killed, and goes on as if nothing had happened."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from repository import REPOSITORY

import d2_transfer.train_net as train_net
from d2_transfer.trainer import Trainer

C4 = REPOSITORY / "configs/quick/detection_faster_rcnn_r18_c4.yaml"

pytestmark = pytest.mark.filterwarnings("ignore:torch.meshgrid")  # Detectron2's own, on this stack


def arguments(entry: dict[str, Any], output: Path, weights: Path, **more: Any) -> list[str]:
    """Eight iterations with all that is random; `Trainer` decides when a checkpoint is due."""
    options = {
        "OUTPUT_DIR": output,
        "MODEL.WEIGHTS": weights,
        "DATASETS.CUSTOM": [entry],
        "DATASETS.TRAIN": (entry["NAME"],),
        "DATASETS.TEST": (entry["NAME"],),
        "INPUT.MIN_SIZE_TRAIN": (56, 64, 72),
        "INPUT.MIN_SIZE_TEST": 64,
        "TEST.PRECISE_BN.NUM_ITER": 2,
        "TEST.EVAL_PERIOD": 3,
        "SOLVER.IMS_PER_BATCH": 2,
        "SOLVER.MAX_ITER": 8,
        "SOLVER.STEPS": (),
        "SOLVER.AMP.ENABLED": False,
        "SOLVER.CHECKPOINT_PERIOD": 100,
        "DATALOADER.NUM_WORKERS": 1,
        "SEED": 3,
    }
    pairs = [str(part) for pair in (options | more).items() for part in pair]
    return ["--config-file", str(C4), "--num-gpus", "0", "--resume-or-start", *pairs]


def weights_of(output: Path) -> dict[str, torch.Tensor]:
    return torch.load(output / "model_final.pth", weights_only=True)["model"]


def assert_equal(ours: Path, theirs: Path) -> None:
    a, b = weights_of(ours), weights_of(theirs)
    assert a.keys() == b.keys()
    for name, tensor in a.items():
        assert torch.equal(tensor, b[name]), name


def test_a_signal_saves_and_the_run_goes_on_bit_for_bit(
    tmp_path: Path,
    scenes: Any,
    encoder_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    entry = scenes.coco("stopped")
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    assert train_net.main(arguments(entry, whole, encoder_file)) == 0
    run_step = Trainer.run_step

    def signalled(self: Trainer) -> None:
        run_step(self)
        if self.iter in (1, 4):
            os.kill(os.getpid(), signal.SIGTERM if self.iter == 1 else signal.SIGUSR1)

    handlers = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1)]
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "run_step", signalled)
        for iteration in (1, 4):
            capsys.readouterr()
            assert train_net.main(arguments(entry, stopped, encoder_file)) == 75
            told = f"stop requested: saved after iteration {iteration}; --resume-or-start continues"
            assert capsys.readouterr().err.endswith(told + "\n")
            assert (stopped / "last_checkpoint").read_text() == f"model_{iteration:07d}.pth"
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1)] == handlers
    assert "Traceback" not in (stopped / "log.txt").read_text()
    assert train_net.main(arguments(entry, stopped, encoder_file)) == 0
    assert_equal(stopped, whole)


def test_a_signal_in_the_last_step_changes_nothing(
    tmp_path: Path, scenes: Any, encoder_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_step = Trainer.run_step

    def signalled(self: Trainer) -> None:
        run_step(self)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Trainer, "run_step", signalled)
    more = {"SOLVER.MAX_ITER": 1}
    assert train_net.main(arguments(scenes.coco("last"), tmp_path, encoder_file, **more)) == 0
    assert (tmp_path / "last_checkpoint").read_text() == "model_final.pth"


def started(*command: Any) -> subprocess.Popen[str]:
    env = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, *map(str, command)],
        cwd=REPOSITORY,
        env=env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


@pytest.mark.slow
def test_killed_at_random_moments(tmp_path: Path, scenes: Any, encoder_file: Path) -> None:
    """kill -9, of the whole group with the loader's workers, whatever the run is doing."""
    entry = scenes.coco("killed")
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    more = {"SOLVER.CHECKPOINT_PERIOD": 1}
    assert train_net.main(arguments(entry, whole, encoder_file, **more)) == 0
    command = arguments(entry, killed, encoder_file, **more)
    rng, kills = random.Random(0), 0
    while kills < 5:
        process = started("d2_transfer/train_net.py", *command)
        metrics = killed / "metrics.json"
        before = metrics.stat().st_size if metrics.exists() else 0
        deadline = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < deadline:
            if (killed / "log.txt").exists() and rng.random() < 0.02:
                break
            time.sleep(0.2)
        if process.poll() is not None:
            break
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        kills += 1
        assert not metrics.exists() or metrics.stat().st_size >= before
    assert kills >= 2
    assert train_net.main(command) == 0
    assert_equal(killed, whole)


@pytest.mark.slow
@pytest.mark.dist
def test_two_processes_stop_after_the_same_step(
    tmp_path: Path, scenes: Any, encoder_file: Path
) -> None:
    entry = scenes.coco("both")
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", 2)
    more = {
        "MODEL.RESNETS.NORM": "naiveSyncBN",
        "SOLVER.MAX_ITER": 40,
        "TEST.EVAL_PERIOD": 0,
        "DATALOADER.NUM_WORKERS": 0,
    }
    script = (*torchrun, "d2_transfer/train_net.py")
    process = started(*script, *arguments(entry, whole, encoder_file, **more))
    assert process.communicate(timeout=300)[1] is not None and process.returncode == 0
    command = (*script, *arguments(entry, stopped, encoder_file, **more))
    process = started(*command)
    deadline = time.monotonic() + 120
    log = stopped / "log.txt"
    while not (log.exists() and "eta:" in log.read_text()):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGTERM)
    process.communicate(timeout=120)
    last = (stopped / "last_checkpoint").read_text()
    assert last.startswith("model_00000") and last != "model_final.pth"
    process = started(*command)
    assert process.communicate(timeout=300)[1] is not None and process.returncode == 0
    assert_equal(stopped, whole)
