"""A run whose covariance cannot be inverted ends as any run whose loss is not finite."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from repository import REPOSITORY

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


def run(folder, *launcher, **opts):
    images = folder / "images"
    images.mkdir()
    for n in range(64):
        Image.fromarray(np.full((40, 40, 3), 128, np.uint8)).save(images / f"{n}.png")
    pairs = OPTS | opts | {"DATA.ROOT": images, "OUTPUT_DIR": folder / "run"}
    words = [str(word) for pair in pairs.items() for word in pair]
    done = subprocess.run(
        [sys.executable, *launcher, "tools/pretrain.py", "--config-file", QUICK, *words],
        cwd=REPOSITORY,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,  # a process that waits for another would wait for half an hour
    )
    state = torch.load(folder / "run" / "diagnostic.pth", weights_only=True)
    assert len(state["views"]) == 2 and not (folder / "run" / "model_final.pth").exists()
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    for error in errors:
        assert error.startswith(
            "error: the loss is nan at iteration 0; diagnostic.pth beside the checkpoints"
        )
        assert "METHOD.WHITENING.EPS" in error
    return done, errors


@pytest.mark.parametrize("method", ["wmse", "pca", "zca_bw"])
def test_equal_images_end_the_run_with_code_2_and_one_line(tmp_path, method):
    done, errors = run(tmp_path, **{"METHOD.NAME": method})
    assert done.returncode == 2 and len(errors) == 1
    assert "Traceback" not in done.stderr


@pytest.mark.dist
def test_equal_images_end_both_processes(tmp_path):
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done, errors = run(tmp_path, *torchrun)
    assert done.returncode != 0 and errors
    assert "exitcode  : 2" in done.stderr.replace("\t", "  ")
