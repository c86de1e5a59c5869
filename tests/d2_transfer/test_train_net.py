"""The command: its two forms, its exit codes, and that a mistake is one line."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from repository import REPOSITORY

import d2_transfer.train_net as train_net
from d2_transfer.fine_tuning import prepare

Run = Callable[..., "subprocess.CompletedProcess[str]"]
C4 = "configs/quick/detection_faster_rcnn_r18_c4.yaml"


def options(entry: dict[str, Any], output: Path, *more: Any) -> list[str]:
    """One iteration on two images, and its evaluation."""
    name = str((entry["NAME"],))
    pairs = [
        *("DATASETS.CUSTOM", [entry], "DATASETS.TRAIN", name, "DATASETS.TEST", name),
        *("MODEL.ROI_HEADS.NUM_CLASSES", 2, "OUTPUT_DIR", output, "SOLVER.IMS_PER_BATCH", 2),
        *(
            "SOLVER.MAX_ITER",
            1,
            "SOLVER.STEPS",
            (),
            "SOLVER.AMP.ENABLED",
            False,
            "TEST.PRECISE_BN.NUM_ITER",
            1,
        ),
        *("INPUT.MIN_SIZE_TRAIN", (64,), "INPUT.MIN_SIZE_TEST", 64, *more),
    ]
    return [str(part) for part in pairs]


def in_process(*arguments: str) -> int:
    """The command without the seconds that importing Detectron2 takes."""
    return train_net.main(arguments)


def test_the_script_trains_and_evaluates(
    tmp_path: Path, scenes: Any, encoder_file: Path, run_tool: Run
) -> None:
    arguments = options(scenes.voc("script"), tmp_path / "run", "MODEL.WEIGHTS", encoder_file)
    # No --num-gpus: the default, 1, falls back to the CPU.
    script = ("d2_transfer/train_net.py", "--config-file", C4)
    result = run_tool(*script, *arguments, PYTHONPATH=str(REPOSITORY))
    assert result.returncode == 0, result.stderr
    assert "copypaste: AP,AP50,AP75" in result.stdout
    assert (tmp_path / "run" / "model_final.pth").is_file()


def test_the_module_says_a_mistake_in_one_line_and_exits_with_2(
    tmp_path: Path, scenes: Any, checkpoint_file: Path, run_tool: Run
) -> None:
    arguments = options(scenes.voc("raw"), tmp_path / "run", "MODEL.WEIGHTS", checkpoint_file)
    result = run_tool(
        *("-m", "d2_transfer.train_net", "--config-file", C4, "--num-gpus", "0", *arguments),
        PYTHONPATH=str(REPOSITORY),
    )
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    assert result.stderr.startswith(f"error: {checkpoint_file} is not converted to Detectron2's")
    assert not (tmp_path / "run").exists()


def test_the_module_refuses_a_config_value_in_one_line_and_exits_with_2(run_tool: Run) -> None:
    command = ("-m", "d2_transfer.train_net", "--config-file", C4, "SOLVER.MAX_ITER", "many")
    result = run_tool(*command, PYTHONPATH=str(REPOSITORY))
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("error: SOLVER.MAX_ITER 'many' must be of type int")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config-file", "nowhere.yaml"], "--config-file nowhere.yaml: no such file"),
        (["--config-file", C4, "SOLVER.BASE_LRR", "1"], "unknown config key SOLVER.BASE_LRR"),
        (["--config-file", C4, "SOLVER.MAX_ITER", "many"], "SOLVER.MAX_ITER 'many'"),
        (["--config-file", C4, "SOLVER.MAX_ITER"], "'SOLVER.MAX_ITER' has no value"),
        (["--config-file", C4, "--num-gpus", "-1"], "--num-gpus -1 is negative"),
        (["--config-file", C4, "--num-gpus", "99"], "--num-gpus 99: this machine shows"),
        (["--config-file", C4, "DATASETS.TRAIN", "('no_such',)"], "unknown data set 'no_such'"),
        (["--config-file", C4, "DATASETS.CUSTOM", "[{'NAME': 'x'}]"], "DATASETS.CUSTOM: {'NAME'"),
    ],
)
def test_mistakes_in_the_arguments(
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(REPOSITORY)
    assert in_process(*arguments) == 2
    error = capsys.readouterr().err
    assert error.splitlines()[-1].startswith("error: ")
    assert message in error.splitlines()[-1]


def test_evaluation_without_weights_is_an_error(
    tmp_path: Path, scenes: Any, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    monkeypatch.chdir(REPOSITORY)
    arguments = options(scenes.voc("unfounded"), tmp_path / "run")
    base = ("--config-file", C4, "--num-gpus", "0", "--eval-only")
    assert in_process(*base, *arguments) == 2
    assert "--eval-only needs weights to evaluate" in capsys.readouterr().err
    assert in_process(*base, "--resume-or-start", *arguments) == 2
    assert "--eval-only needs weights to evaluate" in capsys.readouterr().err
    assert in_process(*base, "--resume", *arguments) == 2
    assert f"OUTPUT_DIR {tmp_path / 'run'} holds no checkpoint" in capsys.readouterr().err


def test_a_backbone_is_nothing_to_evaluate(
    tmp_path: Path,
    scenes: Any,
    encoder_file: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(REPOSITORY)
    arguments = options(scenes.voc("headless"), tmp_path / "run", "MODEL.WEIGHTS", encoder_file)
    assert in_process("--config-file", C4, "--num-gpus", "0", "--eval-only", *arguments) == 2
    assert "fills 100 of 114 tensors of the model" in capsys.readouterr().err


def test_a_hostile_file_is_refused_before_detectron2_unpickles_it(
    tmp_path: Path, scenes: Any, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    monkeypatch.chdir(REPOSITORY)
    witness = tmp_path / "executed"
    hostile = tmp_path / "hostile.pkl"
    hostile.write_bytes(f"cos\nsystem\n(S'touch {witness}'\ntR.".encode())
    arguments = options(scenes.voc("hostile"), tmp_path / "run", "MODEL.WEIGHTS", hostile)
    assert in_process("--config-file", C4, "--num-gpus", "0", *arguments) == 2
    assert "is refused: it needs the type 'os.system'" in capsys.readouterr().err
    assert not witness.exists()


def test_the_traceback_is_shown_where_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)
    with pytest.raises(ValueError, match="num_gpus 99"):
        in_process("--debug", "--config-file", C4, "--num-gpus", "99")


@pytest.mark.skipif(torch.cuda.is_available(), reason="asks for the CPU where there is a GPU")
def test_the_device_without_a_gpu(tmp_path: Path, scenes: Any, monkeypatch: Any) -> None:
    monkeypatch.chdir(REPOSITORY)
    arguments = ["--config-file", C4, *options(scenes.voc("device"), tmp_path / "run")]
    cfg = prepare(*train_net.from_arguments(train_net.parse_args(arguments)))
    assert cfg.MODEL.DEVICE == "cpu"
    assert cfg.is_frozen()
    assert not (tmp_path / "run").exists()  # nothing is written before all is checked


@pytest.mark.slow
def test_importing_modeling_registers_and_runs_nothing() -> None:
    code = (
        "import d2_transfer.modeling, sys; from detectron2.modeling import ROI_HEADS_REGISTRY;"
        " from detectron2.utils.file_io import PathManager;"
        " assert 'Res5ROIHeadsExtraNorm' in ROI_HEADS_REGISTRY;"
        " assert 'cwrgp://' in PathManager._path_handlers;"
        " assert 'd2_transfer.train_net' not in sys.modules; import d2_transfer.fine_tuning"
    )
    result = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "-c", code],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_a_full_disk_is_one_line_and_the_run_goes_on_once_there_is_room(
    tmp_path: Path, scenes: Any, encoder_file: Path, run_tool: Run
) -> None:
    output = tmp_path / "run"
    more = ("MODEL.WEIGHTS", encoder_file, "SOLVER.CHECKPOINT_PERIOD", 1)
    entry = scenes.voc("full_disk")
    base = ("--config-file", C4, "--num-gpus", "0")
    assert in_process(*base, *options(entry, output, *more)) == 0
    before = {path.name: path.read_bytes() for path in output.glob("*.pth")}
    command = ("d2_transfer/train_net.py", "--resume", *base)
    arguments = options(entry, output, *more, "SOLVER.MAX_ITER", 2)
    limited = ("tests/helpers/small_disk.py", 1_000_000)
    result = run_tool(*limited, *command, *arguments, PYTHONPATH=str(REPOSITORY))
    assert result.returncode == 2, result.stderr
    start = f"error: {output}/model_0000001.pth was not written: the file is larger than"
    last = result.stderr.splitlines()[-1]  # PyTorch's warnings come first
    assert last.startswith(start) and " MB needed, " in last
    assert "Traceback" not in result.stderr + result.stdout
    assert {path.name: path.read_bytes() for path in output.glob("*.pth")} == before
    assert not list(output.glob(".*"))
    run_tool(*command, *arguments, PYTHONPATH=str(REPOSITORY), check=True)
    assert (output / "last_checkpoint").read_text() == "model_final.pth"
    assert torch.load(output / "model_final.pth", weights_only=True)["iteration"] == 1
