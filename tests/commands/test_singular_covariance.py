"""A run whose covariance cannot be inverted, or whose input is NaN, ends with diagnostic.pth."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from repository import REPOSITORY

from cwrgp.commands.pretrain import main

QUICK = "configs/quick/pretrain_cwrgp_r18.yaml"
OPTS = {
    "METHOD.NAME": "wmse",
    "METHOD.WHITENING.SUBBATCH_SIZE": 16,
    "MODEL.PROJECTOR.OUT": 8,
    "SOLVER.BATCH_SIZE": 32,
    "SOLVER.EPOCHS": 2,
    "DATA.NUM_WORKERS": 0,
    "EVAL.PERIOD": 0,
    # Views of one colour are equal whatever is cut out of them.
    "AUGMENT.JITTER_PROB": 0.0,
    "AUGMENT.GRAYSCALE_PROB": 0.0,
}


def command_line(folder, **opts):
    """Arguments of a run on equal images."""
    images = folder / "images"
    images.mkdir()
    for n in range(64):
        Image.fromarray(np.full((40, 40, 3), 128, np.uint8)).save(images / f"{n}.png")
    pairs = OPTS | opts | {"DATA.ROOT": images, "OUTPUT_DIR": folder / "run"}
    return ["--config-file", QUICK, *(str(word) for pair in pairs.items() for word in pair)]


def assert_stopped(folder, stderr):
    """Returns the errors, one for each process at most."""
    state = torch.load(folder / "run" / "diagnostic.pth", weights_only=True)
    assert len(state["views"]) == 2 and not (folder / "run" / "model_final.pth").exists()
    errors = [line for line in stderr.splitlines() if line.startswith("error: ")]
    for error in errors:
        assert error.startswith(
            "error: the loss is nan at iteration 0; diagnostic.pth beside the checkpoints"
        )
        assert ".EPS" in error
    return errors


@pytest.mark.parametrize("method", ["wmse", "pca", "zca_bw"])
def test_equal_images_end_the_run_with_code_2_and_one_line(tmp_path, capsys, method):
    assert main(command_line(tmp_path, **{"METHOD.NAME": method})) == 2
    stderr = capsys.readouterr().err
    (error,) = assert_stopped(tmp_path, stderr)
    assert "METHOD.WHITENING.EPS" in error
    assert "Traceback" not in stderr


# The standard deviation is zero in fp32: the network's input is infinite and its output NaN.
@pytest.mark.parametrize("method", ["cwrgp", "zca_cw"])
def test_input_that_is_not_finite_ends_the_run_with_code_2_and_one_line(tmp_path, capsys, method):
    opts = {"METHOD.NAME": method, "DATA.STD": [1e-46] * 3, "MODEL.PROJECTOR.OUT": 128}
    assert main(command_line(tmp_path, **opts)) == 2
    stderr = capsys.readouterr().err
    assert len(assert_stopped(tmp_path, stderr)) == 1
    assert "Traceback" not in stderr


@pytest.mark.dist
def test_equal_images_end_both_processes(tmp_path):
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = subprocess.run(
        [sys.executable, *torchrun, "tools/pretrain.py", *command_line(tmp_path)],
        cwd=REPOSITORY,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,  # a process that waits for another would wait for half an hour
    )
    assert done.returncode != 0 and assert_stopped(tmp_path, done.stderr)
    assert "exitcode  : 2" in done.stderr.replace("\t", "  ")
