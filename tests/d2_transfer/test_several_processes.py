"""Training and evaluation in two processes on the CPU, and how a mistake in one of them ends."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from repository import REPOSITORY

import d2_transfer
import d2_transfer.train_net as train_net

Run = Callable[..., "subprocess.CompletedProcess[str]"]
C4 = "configs/quick/detection_faster_rcnn_r18_c4.yaml"
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", 2)

pytestmark = [
    pytest.mark.dist,
    pytest.mark.filterwarnings("ignore:torch.meshgrid"),  # Detectron2's own, on this stack
]


@pytest.fixture
def two_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets ``--num-gpus 2`` start two processes, which then use the CPU and gloo."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.chdir(REPOSITORY)
    monkeypatch.setenv("CWRGP_CACHE", str(tmp_path / "cache"))


def values(entry: dict[str, Any], output: Path, weights: Path, **more: Any) -> list[str]:
    """Two iterations on two images, one for each process."""
    options = {
        "OUTPUT_DIR": output,
        "MODEL.WEIGHTS": weights,
        "DATASETS.CUSTOM": [entry],
        "DATASETS.TRAIN": (entry["NAME"],),
        "DATASETS.TEST": (entry["NAME"],),
        "MODEL.ROI_HEADS.NUM_CLASSES": 2,
        "SOLVER.IMS_PER_BATCH": 2,
        "SOLVER.MAX_ITER": 2,
        "SOLVER.STEPS": (),
        "SOLVER.AMP.DTYPE": "bf16",
        "INPUT.MIN_SIZE_TRAIN": (64,),
        "INPUT.MIN_SIZE_TEST": 64,
        "MODEL.RESNETS.NORM": "naiveSyncBN",
        "TEST.PRECISE_BN.ENABLED": False,
        "DATALOADER.NUM_WORKERS": 0,
    }
    return [str(part) for pair in (options | more).items() for part in pair]


def test_torchrun_trains_on_the_cpu_and_evaluates_as_one_process_does(
    tmp_path: Path, scenes: Any, encoder_file: Path, run_tool: Run
) -> None:
    output = tmp_path / "run"
    arguments = values(scenes.coco("torchrun"), output, encoder_file)
    command = (*TORCHRUN, "d2_transfer/train_net.py", "--config-file", C4)
    env = {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    done = run_tool(*command, *arguments, **env)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "World size: 2" in (output / "log.txt").read_text()
    assert torch.load(output / "model_final.pth", weights_only=True)["iteration"] == 1
    alone = tmp_path / "alone"
    arguments += ["OUTPUT_DIR", str(alone), "MODEL.WEIGHTS", str(output / "model_final.pth")]
    config = str(REPOSITORY / C4)
    assert train_net.main(["--eval-only", "--config-file", config, *arguments]) == 0
    assert scores(output) == pytest.approx(scores(alone), rel=1e-4)


def scores(output: Path) -> list[float]:
    """Of all detections of the last evaluation, sorted."""
    (file,) = output.glob("inference/*/coco_instances_results.json")
    found = [detection["score"] for detection in json.loads(file.read_text())]
    assert len(found) > 20
    return sorted(found)


@pytest.mark.slow
@pytest.mark.usefixtures("two_gpus")
def test_the_results_of_started_processes_are_returned(
    tmp_path: Path, scenes: Any, encoder_file: Path
) -> None:
    entry = scenes.voc("started")
    run = d2_transfer.train(
        C4,
        weights=encoder_file,
        output_dir=tmp_path,
        num_gpus=2,
        MODEL={"ROI_HEADS": {"NUM_CLASSES": 2}},
        DATASETS={"CUSTOM": [entry], "TRAIN": ("started",), "TEST": ("started",)},
        SOLVER={"IMS_PER_BATCH": 2, "MAX_ITER": 1, "STEPS": ()},
        INPUT={"MIN_SIZE_TRAIN": (64,), "MIN_SIZE_TEST": 64},
        DATALOADER={"NUM_WORKERS": 0},
        TEST={"PRECISE_BN": {"ENABLED": False}},
    )
    assert run.metrics.keys() == scenes.voc_metrics
    assert run.checkpoint.is_file()
    # The main process has measured for both.
    assert len(list((tmp_path / "cache" / "number_formats").iterdir())) == 1
    state = torch.load(run.checkpoint)["trainer"]["number_format"]
    log = (tmp_path / "log.txt").read_text()
    assert f"Number format: {state['dtype']}, {state['memory_format']} (measured: " in log


@pytest.mark.usefixtures("two_gpus")
def test_a_mistake_in_a_started_process_is_one_line(
    tmp_path: Path, scenes: Any, encoder_file: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    more = {"DATALOADER.SAMPLER_TRAIN": "Sampler"}  # which only the loader looks at
    arguments = values(scenes.coco("mistaken"), tmp_path / "run", encoder_file, **more)
    assert train_net.main(["--num-gpus", "2", "--config-file", C4, *arguments]) == 2
    out, err = capfd.readouterr()
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and "Unknown training sampler: Sampler" in errors[0]
    assert "Traceback" not in out + err and "ProcessRaisedException" not in out + err


@pytest.mark.usefixtures("two_gpus")
def test_a_loss_that_is_not_finite_is_one_line(
    tmp_path: Path, scenes: Any, encoder_file: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    more = {"SOLVER.BASE_LR": 1e12, "SOLVER.MAX_ITER": 20, "SOLVER.WARMUP_ITERS": 0}
    arguments = values(scenes.coco("diverging2"), tmp_path / "run", encoder_file, **more)
    assert train_net.main(["--num-gpus", "2", "--config-file", C4, *arguments]) == 2
    out, err = capfd.readouterr()
    assert len([line for line in err.splitlines() if line.startswith("error: ")]) == 1
    assert "Traceback" not in out + err
