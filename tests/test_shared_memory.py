"""A dead worker or a full /dev/shm ends a run in one line, with nothing left running."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from containers import finished, in_small_container
from repository import REPOSITORY
from torch.utils.data import DataLoader, Dataset

from cwrgp.shared_memory import worker_errors_end_the_run

QUICK = REPOSITORY / "configs/quick/pretrain_cwrgp_r18.yaml"
ADVICE = "docker run --shm-size 8g), or set {} to a smaller number (0 needs no shared memory)\n"


# While a worker sends a batch, its connection breaks before its death is known.
DIED = r"error: a data loader worker died( \(killed by signal: Killed\))?, perhaps for lack of mem"


def pretrain(image_folder: Path, output: Path, *opts: object) -> list[object]:
    options = ["DATA.ROOT", image_folder, "OUTPUT_DIR", output, "EVAL.PERIOD", 0, *opts]
    return ["tools/pretrain.py", "--config-file", QUICK, *options]


def test_a_run_that_needs_more_than_there_is_does_not_start(image_folder, tmp_path):
    opts = ["DATA.IMAGE_SIZE", 64, "DATA.PROBE_RESIZE", 64, "DATA.NUM_WORKERS", 1]
    done = in_small_container(*pretrain(image_folder, tmp_path, *opts))
    assert done.returncode == 2 and "total_loss" not in done.stdout
    # 64 images of 2 views of 64 x 64: 1.5 MiB in each of the five batches in flight.
    need = "error: the batches in flight need 7.5 MiB of shared memory, and /dev/shm has 1.0 MiB f"
    assert done.stderr.startswith(need)
    assert done.stderr.endswith(ADVICE.format("DATA.NUM_WORKERS")) and done.stderr.count("\n") == 1


FULL = """
import argparse, sys
from operator import itemgetter
import torch
from torch.utils.data import DataLoader, Dataset
from cwrgp.cli import run_main
from cwrgp.shared_memory import exit_on_queue_errors, worker_errors_end_the_run

class Large(Dataset):
    def __len__(self):
        return 64

    def __getitem__(self, index):
        exit_on_queue_errors()
        return {"image": torch.zeros(2**21)}

@worker_errors_end_the_run("KEY")
def main(args):
    collate = itemgetter(0) if sys.argv[1] == "queue" else None
    loader = DataLoader(Large(), num_workers=2, collate_fn=collate)
    for batch in loader:
        pass

sys.exit(run_main(main, argparse.Namespace(debug=False)))
"""


@pytest.mark.parametrize("place", ["collate", "queue"])
def test_workers_that_fill_the_shared_memory_end_the_run(place):
    done = in_small_container("-c", FULL, place)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: a data loader worker ")
    assert {"collate": "ran out of", "queue": "a data loader worker died"}[place] in done.stderr
    assert " of 1.0 MiB free" in done.stderr
    assert done.stderr.endswith(ADVICE.format("KEY")) and done.stderr.count("\n") == 1


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def start(words: list[str], output: Path) -> subprocess.Popen[str]:
    """A run that has made its first step."""
    process = subprocess.Popen(
        words,
        cwd=REPOSITORY,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 240
    while not (output / "metrics.json").is_file() or not (output / "metrics.json").read_text():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
    return process


def test_a_killed_worker_ends_the_run(image_folder, tmp_path):
    command = pretrain(image_folder, tmp_path, "DATA.NUM_WORKERS", 2, "SOLVER.EPOCHS", 2000)
    words = [sys.executable, *map(str, command)]
    process = start(words, tmp_path)
    os.kill(children(process.pid)[0], signal.SIGKILL)
    done = finished(process, words)
    assert done.returncode == 2
    assert re.match(DIED, done.stderr)
    assert done.stderr.endswith(ADVICE.format("DATA.NUM_WORKERS")) and done.stderr.count("\n") == 1


@pytest.mark.dist
def test_a_killed_worker_of_one_of_two_processes_ends_both(image_folder, tmp_path):
    command = pretrain(image_folder, tmp_path, "DATA.NUM_WORKERS", 1, "SOLVER.EPOCHS", 2000)
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    words = [sys.executable, *launcher, *map(str, command)]
    process = start(words, tmp_path)
    ranks = children(process.pid)
    assert len(ranks) == 2
    (worker, *_), others = map(children, ranks)
    os.kill(worker, signal.SIGKILL)
    done = finished(process, words)
    assert done.returncode != 0
    assert len(re.findall(f"^{DIED}", done.stderr, re.M)) == 1
    assert "exitcode  : 2" in done.stderr.replace("\t", "  ")
    left = [pid for pid in (*ranks, worker, *others) if Path(f"/proc/{pid}").exists()]
    assert left == []


class Defective(Dataset):
    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> torch.Tensor:
        raise RuntimeError("a defect")


def test_a_defect_in_a_worker_keeps_its_traceback():
    with (
        pytest.raises(RuntimeError, match=r"(?s)Caught .* Traceback .*RuntimeError: a defect"),
        worker_errors_end_the_run("KEY"),
    ):
        list(DataLoader(Defective(), num_workers=1))
