"""The commands as functions of `d2_transfer`: tiny real runs, and life without Detectron2."""

from __future__ import annotations

import importlib
import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from encoders import own_checkpoint
from repository import REPOSITORY

import d2_transfer
from cwrgp.checkpoints.pixel_statistics import PixelStatistics
from d2_transfer.commands.convert import main as convert_main
from d2_transfer.config import get_cfg

Run = Callable[..., "subprocess.CompletedProcess[str]"]
C4 = "quick/detection_faster_rcnn_r18_c4.yaml"

pytestmark = [
    # Detectron2's own, on this stack.
    pytest.mark.filterwarnings("ignore:torch.meshgrid"),
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword"),
]


@pytest.mark.slow
def tiny(entry: dict[str, Any]) -> dict[str, Any]:
    """One iteration on two images."""
    names = (entry["NAME"],)
    return {
        "DATASETS": {"CUSTOM": [entry], "TRAIN": names, "TEST": names},
        "MODEL": {"ROI_HEADS": {"NUM_CLASSES": 2}},
        "SOLVER": {
            "MAX_ITER": 1,
            "STEPS": (),
            "IMS_PER_BATCH": 2,
            "AMP": {"ENABLED": False},
        },
        "INPUT": {"MIN_SIZE_TRAIN": (64,), "MIN_SIZE_TEST": 64},
        "TEST": {"PRECISE_BN": {"NUM_ITER": 1}},
    }


def test_each_function_again_and_again(tmp_path: Path, scenes: Any, checkpoint_file: Path) -> None:
    for turn in range(3):
        output = tmp_path / str(turn)
        converted = d2_transfer.convert(checkpoint_file, output / "encoder.pkl", source="cwrgp")
        assert converted.output == output / "encoder.pkl" and converted.output.is_file()
        assert converted.pixels is None and not converted.encoder.state_dict
        proof = converted.verification
        assert proof is not None and proof.float64 <= 1e-9
        run = d2_transfer.train(
            C4, weights=converted.output, output_dir=output, num_gpus=0, **tiny(scenes.voc("again"))
        )
        assert run.output_dir == output and run.checkpoint == output / "model_final.pth"
        assert run.checkpoint.is_file()
        assert run.metrics.keys() == scenes.voc_metrics
        # The console scripts' modules.
        importlib.import_module("d2_transfer.commands.convert")
        importlib.import_module("d2_transfer.train_net")
    assert callable(d2_transfer.convert) and callable(d2_transfer.train)


def test_a_conversion_states_the_pixel_statistics_of_the_pretraining(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = "DATA: {MEAN: [0.4914, 0.4822, 0.4465], STD: [0.2023, 0.1994, 0.2010]}"
    torch.save({**own_checkpoint(18), "config": config}, tmp_path / "model_final.pth")
    paths = (str(tmp_path / "model_final.pth"), str(tmp_path / "encoder.pkl"))
    converted = d2_transfer.convert(*paths)
    expected = PixelStatistics((125.307, 122.961, 113.8575), (51.5865, 50.847, 51.255))
    assert converted.pixels == expected
    report = tmp_path / "report.json"
    assert convert_main([*paths, "--report", str(report)]) == 0
    assert f"pixels         {expected}\n" in capsys.readouterr().out
    assert json.loads(report.read_text())["pixel_mean"] == [125.307, 122.961, 113.8575]


def test_a_run_is_resumed_and_a_config_object_is_not_changed(tmp_path: Path, scenes: Any) -> None:
    cfg = get_cfg()
    cfg.merge_from_file(str(REPOSITORY / "configs" / C4))
    before = cfg.dump()
    options: dict[str, Any] = {"output_dir": tmp_path, "num_gpus": 0, **tiny(scenes.coco("object"))}
    run = d2_transfer.train(cfg, weights="", **options)
    options["SOLVER"]["MAX_ITER"] = 2
    with pytest.raises(ValueError, match=f"OUTPUT_DIR {tmp_path} holds a run already; add"):
        d2_transfer.train(cfg, weights="", **options)
    d2_transfer.train(cfg, resume=True, **options)
    assert f"Resumed from {run.checkpoint}, at iteration 1" in (tmp_path / "log.txt").read_text()
    assert cfg.dump() == before and not cfg.is_frozen()


def test_mistakes_are_one_line(tmp_path: Path, scenes: Any) -> None:
    for given, error, message in (
        ({"config": "detection/voc.yaml"}, FileNotFoundError, "no packaged config of this name"),
        ({"SOLVER": {"EPOCHS": 1}}, ValueError, "unknown config key SOLVER.EPOCHS; did you mean"),
        ({"num_gpus": 99}, ValueError, "num_gpus 99: this machine shows"),
        ({"num_gpus": -1}, ValueError, "num_gpus -1 is negative"),
        (
            {"resume": True},
            FileNotFoundError,
            "holds no checkpoint to go on from; omit resume=True",
        ),
        ({"weights": "nowhere.pkl"}, FileNotFoundError, "MODEL.WEIGHTS nowhere.pkl"),
    ):
        arguments = {"config": C4, "num_gpus": 0, **tiny(scenes.voc("mistakes")), **given}
        with pytest.raises(error) as caught:
            d2_transfer.train(**arguments, output_dir=tmp_path / "run")
        assert message in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_the_script_of_the_readme(
    tmp_path: Path, image_folder: Path, scenes: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (REPOSITORY / "README.md").read_text(), re.DOTALL)
    (script,) = [block for block in blocks if "d2_transfer.train(" in block]
    assert len(script.splitlines()) <= 12
    pretraining = {"SOLVER": {"EPOCHS": 2}, "DATA": {"NUM_WORKERS": 0}}
    detection = tiny(scenes.voc("readme"))
    for name, base, values in (
        ("pretrain/imagenet_cwrgp4_r50_100ep.yaml", "quick/pretrain_cwrgp_r18.yaml", pretraining),
        ("detection/pascal_voc_R_50_C4_24k.yaml", C4, detection),
    ):
        # A file of the packaged config's name comes first.
        (tmp_path / name).parent.mkdir()
        content = json.loads(json.dumps({"_BASE_": base, **values}))  # tuples as YAML has them
        (tmp_path / name).write_text(yaml.safe_dump(content))
    (tmp_path / "photos").symlink_to(image_folder)
    monkeypatch.chdir(tmp_path)
    printed: list[object] = []
    exec(script, {"print": printed.append})
    assert len(printed) == 1 and 0 <= float(str(printed[0])) <= 100


def test_what_the_package_exports() -> None:
    assert {"convert", "train"} <= set(dir(d2_transfer))
    assert set(d2_transfer.__all__) == d2_transfer._EXPORTS.keys()
    for name in d2_transfer._EXPORTS:
        assert getattr(d2_transfer, name).__name__ == name
        # Importing such a module would put it in the function's place.
        assert not (REPOSITORY / "d2_transfer" / name).exists()
        assert not (REPOSITORY / "d2_transfer" / f"{name}.py").exists()
    with pytest.raises(AttributeError, match="module 'd2_transfer' has no attribute 'pretrain'"):
        d2_transfer.pretrain  # noqa: B018


WITHOUT = """
import sys
sys.modules["detectron2"] = None  # as if it were not installed

import d2_transfer
print(*sorted({name.split(".")[0] for name in sys.modules}))

from d2_transfer.commands.convert import main as convert
from d2_transfer.train_net import main as train_net
assert convert(["--list"]) == 0
print("ends")
assert convert(["in.pth", "out.pkl"]) == 2
assert train_net(["--config-file", "detection/coco_R_50_C4_2x.yaml"]) == 2
calls = [lambda: d2_transfer.convert("in.pth", "out.pkl"), lambda: d2_transfer.train("x.yaml")]
calls.append(lambda: __import__("d2_transfer.modeling"))
for call in calls:
    try:
        call()
    except ModuleNotFoundError as error:
        assert error.name == "detectron2"
        print(error, file=sys.stderr)
"""


def test_without_detectron2_the_package_imports_and_says_how_to_get_it(run_tool: Run) -> None:
    result = run_tool("-c", WITHOUT)
    assert result.returncode == 0, result.stderr
    first, *_, last = result.stdout.splitlines()
    assert not set(first.split()) & {"torch", "numpy", "fvcore", "yaml", "cwrgp"}
    assert last == "ends"
    message = "Detectron2 is needed and is not installed: run cwrgp-install-detectron2"
    assert result.stderr.splitlines() == [f"error: {message}"] * 2 + [message] * 3
