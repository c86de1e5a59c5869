"""The commands as functions of `cwrgp`: tiny real runs, again and again, and their mistakes."""

from __future__ import annotations

import importlib
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from images import write_images
from repository import REPOSITORY

import cwrgp
from cwrgp.config import get_cfg
from cwrgp.trackers.jsonl import read_metrics

Run = Callable[..., "subprocess.CompletedProcess[str]"]
QUICK = "quick/pretrain_cwrgp_r18.yaml"
SHORT: dict[str, Any] = {
    "SOLVER": {"EPOCHS": 3, "BATCH_SIZE": 32},
    "DATA": {"NUM_WORKERS": 0},
    "EVAL.PERIOD": 3,
}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes, 16 images of each to train on and 4 to test on."""
    root = tmp_path_factory.mktemp("photos")
    for seed, name in enumerate(("cat", "dog")):
        write_images(root / "train" / name, 16, seed=seed)
        write_images(root / "val" / name, 4, seed=seed + 2)
    return root


def test_each_function_again_and_again(photos: Path, tmp_path: Path) -> None:
    for turn in range(3):
        output = tmp_path / str(turn)
        run = cwrgp.pretrain(QUICK, data_root=photos, output_dir=output, SEED=1, **SHORT)
        assert run.output_dir == output and run.checkpoint == output / "model_final.pth"
        assert run.checkpoint.is_file()
        last = read_metrics(output / "metrics.json")[-1]
        assert run.metrics == {"knn/top1": last["knn/top1"]}
        result = cwrgp.evaluate(QUICK, "knn", run.checkpoint, data_root=photos, EVAL={"KNN_K": 3})
        assert 0 <= result.top1 <= 100 and result.top5 is None and result.output is None
        assert (result.probe, result.record["settings"]) == ("knn", {"KNN_K": 3})
        done = cwrgp.publish(run.checkpoint, output / "published", "tiny")
        assert done.checkpoint.is_file() and done.metrics == run.metrics
        # The console script's modules have names like the functions'.
        for module in ("evaluate", "pretrain", "publish"):
            importlib.import_module(f"cwrgp.commands.{module}")
    assert callable(cwrgp.pretrain) and callable(cwrgp.evaluate) and callable(cwrgp.publish)


def test_a_finished_run_is_resumed_to_the_same_result(photos: Path, tmp_path: Path) -> None:
    run = cwrgp.pretrain(QUICK, data_root=photos, output_dir=tmp_path, **SHORT)
    with pytest.raises(ValueError, match="holds a run already"):
        cwrgp.pretrain(QUICK, data_root=photos, output_dir=tmp_path, **SHORT)
    again = cwrgp.pretrain(QUICK, data_root=photos, output_dir=tmp_path, resume=True, **SHORT)
    assert again == run and run.metrics


def test_a_config_object_is_taken_and_not_changed(photos: Path, tmp_path: Path) -> None:
    cfg = get_cfg()
    cfg.merge_from_file(str(REPOSITORY / "configs" / QUICK))
    before = cfg.dump()
    cwrgp.pretrain(cfg, data_root=photos, output_dir=tmp_path, **SHORT)
    assert cfg.dump() == before and not cfg.is_frozen()


def test_the_result_is_written_where_asked(photos: Path, tmp_path: Path) -> None:
    output = tmp_path / "new" / "result.json"
    result = cwrgp.evaluate(QUICK, "knn", "random", data_root=photos, output=output)
    assert result.output == output
    assert json.loads(output.read_text()) == result.record


def test_mistakes_are_one_line(photos: Path, tmp_path: Path) -> None:
    for given, error, message in (
        ({"config": "quick/pretrain.yaml"}, FileNotFoundError, "quick/pretrain_cwrgp_r18.yaml"),
        ({"SOLVER": {"EPOCH": 1}}, ValueError, "unknown config key SOLVER.EPOCH; did you mean"),
        ({"OUTPUT": "x"}, ValueError, "unknown config key OUTPUT; did you mean OUTPUT_DIR"),
        ({"num_gpus": 9}, ValueError, "num_gpus 9: this machine shows"),
    ):
        arguments: dict[str, Any] = {"config": QUICK, "data_root": photos, **given}
        with pytest.raises(error) as caught:
            cwrgp.pretrain(**arguments, output_dir=tmp_path / "run")
        assert message in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()
    with pytest.raises(ValueError, match="probe 'svm' is unknown; choose one of knn, linear, lb"):
        cwrgp.evaluate(QUICK, "svm", "random", data_root=photos)


def test_what_the_package_exports() -> None:
    assert {"evaluate", "pretrain", "publish", "__version__"} <= set(dir(cwrgp))
    assert set(cwrgp.__all__) == {*cwrgp._EXPORTS, "__version__"}
    for name in cwrgp._EXPORTS:
        assert getattr(cwrgp, name).__name__ == name
        # Importing such a module would put it in the function's place.
        assert not (REPOSITORY / "cwrgp" / name).exists()
        assert not (REPOSITORY / "cwrgp" / f"{name}.py").exists()
    with pytest.raises(AttributeError, match="module 'cwrgp' has no attribute 'train'"):
        cwrgp.train  # noqa: B018


def test_importing_the_package_imports_nothing_else(run_tool: Run) -> None:
    code = "import cwrgp, sys; print(*sorted({name.split('.')[0] for name in sys.modules}))"
    loaded = set(run_tool("-c", code, check=True).stdout.split())
    assert "cwrgp" in loaded
    assert not loaded & {"torch", "numpy", "fvcore", "yaml", "iopath", "torchvision"}


def test_type_checkers_see_the_functions(run_tool: Run) -> None:
    code = "import cwrgp, d2_transfer; reveal_type(cwrgp.pretrain); reveal_type(d2_transfer.train)"
    shown = run_tool("-m", "mypy", "-c", code, check=True).stdout
    assert "-> cwrgp.commands.pretrain.Pretraining" in shown
    assert "-> d2_transfer.train_net.FineTuning" in shown
