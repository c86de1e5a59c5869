"""A detector whose loader runs out of shared memory ends in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from containers import in_small_container

C4 = "configs/quick/detection_faster_rcnn_r18_c4.yaml"
ADVICE = "or set DATALOADER.NUM_WORKERS to a smaller number (0 needs no shared memory)\n"


@pytest.mark.parametrize(
    ("side", "message"),
    [
        # Two images of one worker in flight: 2.1 MiB of square images, or .9 MiB.
        (600, "the batches in flight need 2.1 MiB of shared memory, and /dev/shm has 1.0 MiB free"),
        (400, "a data loader worker died"),
    ],
)
def test_a_full_shared_memory_ends_the_run(
    tmp_path: Path, scenes: Any, encoder_file: Path, side: int, message: str
) -> None:
    entry = scenes.coco("small")
    options = [
        *("MODEL.WEIGHTS", encoder_file, "OUTPUT_DIR", tmp_path, "DATASETS.CUSTOM", [entry]),
        *("DATASETS.TRAIN", ("small",), "DATASETS.TEST", ("small",)),
        *("MODEL.ROI_HEADS.NUM_CLASSES", 2, "SOLVER.IMS_PER_BATCH", 4, "SOLVER.MAX_ITER", 2),
        *(
            "SOLVER.AMP.ENABLED",
            False,
            "SOLVER.STEPS",
            (),
            "INPUT.MIN_SIZE_TRAIN",
            (side,),
            "INPUT.MAX_SIZE_TRAIN",
            800,
        ),
        *("DATALOADER.NUM_WORKERS", 1, "TEST.PRECISE_BN.ENABLED", False),
    ]
    command = ["-m", "d2_transfer.train_net", "--config-file", C4, "--num-gpus", "0"]
    done = in_small_container(*command, *options)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(f"error: {message}")
    assert done.stderr.endswith(ADVICE) and "Traceback" not in done.stdout + done.stderr
