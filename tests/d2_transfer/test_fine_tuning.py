"""Real training and evaluation of small detectors, in this process."""

from __future__ import annotations

import json
import math
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from detectron2.config import CfgNode
from detectron2.evaluation import DatasetEvaluator
from opened_files import opened_files
from repository import REPOSITORY
from wandb_files import offline_files, read_history

from d2_transfer.fine_tuning import fine_tune, prepare
from d2_transfer.train_net import from_arguments, parse_args
from d2_transfer.trainer import Trainer

QUICK = REPOSITORY / "configs" / "quick"
FPN = QUICK / "detection_mask_rcnn_r18.yaml"
C4 = QUICK / "detection_faster_rcnn_r18_c4.yaml"

pytestmark = [
    # Detectron2's own, on this stack.
    pytest.mark.filterwarnings("ignore:torch.meshgrid"),
    pytest.mark.filterwarnings("ignore:The 'warn' method is deprecated"),
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword"),
]


def command(config: Path, output: Path, entry: dict[str, Any], *opts: Any) -> list[str]:
    """Arguments of a run of three iterations on two images each, scaled to 64 px."""
    options: dict[str, Any] = {
        "OUTPUT_DIR": output,
        "DATASETS.CUSTOM": [entry],
        "DATASETS.TRAIN": (entry["NAME"],),
        "DATASETS.TEST": (entry["NAME"],),
        "MODEL.ROI_HEADS.NUM_CLASSES": 2,
        "INPUT.MIN_SIZE_TRAIN": (64,),
        "INPUT.MIN_SIZE_TEST": 64,
        "TEST.PRECISE_BN.NUM_ITER": 2,
        "SOLVER.IMS_PER_BATCH": 2,
        "SOLVER.MAX_ITER": 3,
        "SOLVER.STEPS": (),
        "SOLVER.WARMUP_ITERS": 0,
        "SOLVER.BASE_LR": 0.002,
        "SOLVER.AMP.ENABLED": False,
    }
    options |= dict(zip(opts[::2], opts[1::2], strict=True))
    pairs = [str(part) for pair in options.items() for part in pair]
    return ["--config-file", str(config), "--num-gpus", "0", *pairs]


def run(arguments: list[str], *flags: str) -> Any:
    return fine_tune(*from_arguments(parse_args([*flags, *arguments])))


def setup(arguments: list[str]) -> CfgNode:
    return prepare(*from_arguments(parse_args(arguments)))


def log(output: Path) -> str:
    return (output / "log.txt").read_text()


def test_mask_rcnn_fpn_on_coco(tmp_path: Path, scenes: Any, encoder_file: Path) -> None:
    arguments = command(FPN, tmp_path, scenes.coco("fpn_coco"), "MODEL.WEIGHTS", encoder_file)
    results = run(arguments)
    assert set(results) == {"bbox", "segm"}
    assert {"AP", "AP50", "AP75", "AP-square", "AP-bar"} <= set(results["bbox"])
    assert "New, with random weights: backbone.fpn_lateral2 (5)" in log(tmp_path)
    records = [json.loads(line) for line in (tmp_path / "metrics.json").read_text().splitlines()]
    assert [record["iteration"] for record in records] == [2, 3]  # the last one, and afterwards
    assert {"total_loss", "loss_mask", "lr"} <= set(records[0])
    assert {"bbox/AP", "segm/AP"} <= set(records[1])
    assert {"config.yaml", "last_checkpoint", "model_final.pth"} <= {
        path.name for path in tmp_path.iterdir()
    }
    assert list(tmp_path.glob("events.out.tfevents*"))
    # The saved detector evaluates to the same, with and without a name for its file.
    final = tmp_path / "model_final.pth"
    again = run([*arguments, "MODEL.WEIGHTS", str(final)], "--eval-only")
    assert json.dumps(again) == json.dumps(results)
    assert json.dumps(run(arguments, "--eval-only", "--resume")) == json.dumps(results)


def test_own_data_are_mended_said_and_scored(tmp_path: Path, own_scenes: Any) -> None:
    path = own_scenes.root / "coco.json"
    content = json.loads(path.read_text())
    things = content["annotations"]
    things[0]["bbox"][2] = 0
    things[1]["segmentation"] = []
    things[2]["segmentation"] = {"size": [64, 64], "counts": [130, 60, 64 * 64 - 190]}
    path.write_text(json.dumps(content))
    val = json.loads(path.read_text())
    val["categories"] = val["categories"][1:]
    val["annotations"] = [thing for thing in things if thing["category_id"] == 20]
    (own_scenes.root / "val.json").write_text(json.dumps(val))
    entry = own_scenes.coco("mended")
    spec = f"coco:{own_scenes.root}/val.json:{own_scenes.root}/JPEGImages"
    counted = ("MODEL.ROI_HEADS.NUM_CLASSES", 0, "INPUT.MASK_FORMAT", "polygon")
    arguments = command(
        FPN, tmp_path, entry, "MODEL.WEIGHTS", "", *counted, "DATASETS.TEST", (spec,)
    )
    results = run(arguments)
    assert results["bbox"].keys() >= {"AP-square", "AP-bar"}
    assert math.isnan(results["bbox"]["AP-square"])  # which the test data lack
    text = log(tmp_path)
    assert text.count("The model's 2 classes: square, bar") == 1
    assert text.count("mended: 6 images, 8 objects") == 1
    for line in (r"box of width or height 0 .*skipped +1", r"object without a mask, .*mended +1"):
        assert len(re.findall(line, text)) == 1
    assert "masks with RLE, read as INPUT.MASK_FORMAT bitmask" in text
    stored = yaml.safe_load((tmp_path / "config.yaml").read_text())
    assert stored["DATASETS"]["CLASSES"] == ["square", "bar"]
    assert stored["MODEL"]["ROI_HEADS"]["NUM_CLASSES"] == 2
    assert stored["INPUT"]["MASK_FORMAT"] == "bitmask"
    # The classes of the run, not of the test data.
    again = run([*arguments, "MODEL.WEIGHTS", str(tmp_path / "model_final.pth")], "--eval-only")
    assert json.dumps(again) == json.dumps(results)


def test_loggers_get_the_records_of_metrics_json_and_go_on_when_it_resumes(
    tmp_path: Path, scenes: Any, encoder_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    opts = ("MODEL.WEIGHTS", encoder_file, "LOGGERS", "['wandb']")
    run(command(C4, tmp_path, scenes.coco("logged"), *opts))
    shown = ("SOLVER.MAX_ITER", 5, "TEST.SHOWN_IMAGES", 2)
    run(command(C4, tmp_path, scenes.coco("logged"), *opts, *shown), "--resume")
    records = [json.loads(line) for line in (tmp_path / "metrics.json").read_text().splitlines()]
    files = offline_files(tmp_path)
    everything = [record for file in files for record in read_history(file)]
    history = [record for record in everything if not any("predictions" in k for k in record)]
    (pictures,) = [record for record in everything if record not in history]
    assert pictures.pop("iteration") == 4
    for name in ("000000", "000005"):
        found = {key: pictures[f"predictions/{name}.png.{key}"] for key in ("_type", "width")}
        assert found == {"_type": "image-file", "width": 128}  # 64 px, drawn twice as large
    assert [r["iteration"] for r in history] == [r["iteration"] for r in records] == [2, 3, 4, 5]
    for logged, record in zip(history, records, strict=True):
        assert logged == pytest.approx(record, nan_ok=True)
    assert "total_loss" in history[0] and "bbox/AP" in history[1]
    assert len(files) == 2 and files[0].name == files[1].name  # one run of W&B
    assert not list(tmp_path.glob("events.out.tfevents*"))


def test_an_unknown_logger_is_refused(tmp_path: Path, scenes: Any) -> None:
    arguments = command(C4, tmp_path, scenes.voc("unlogged"), "LOGGERS", "['comet']")
    with pytest.raises(ValueError, match="LOGGERS 'comet' is unknown; choose from"):
        run(arguments)


def test_faster_rcnn_c4_on_voc(tmp_path: Path, scenes: Any, encoder_file: Path) -> None:
    entry = scenes.voc("c4_voc", YEAR=2012)
    opts = ("MODEL.WEIGHTS", encoder_file, "TEST.EVAL_PERIOD", 2)
    results = run(command(C4, tmp_path, entry, *opts))
    assert list(results) == ["bbox", "coco", "voc07", "voc10"]
    assert set(results["bbox"]) == {"AP", "AP50", "AP75"}
    assert results["bbox"] == results["voc10"]
    last = json.loads((tmp_path / "metrics.json").read_text().splitlines()[-1])
    assert {"bbox/AP", "coco/AP", "voc07/AP", "voc10/AP"} <= set(last)
    for task in ("bbox", "coco", "voc07", "voc10"):  # during the run and at its end
        assert log(tmp_path).count(f"copypaste: Task: {task}\n") == 2
    written = json.loads((tmp_path / "inference" / "c4_voc" / "scores.json").read_text())
    assert written["protocol"] == "voc10"
    assert list(written) == ["protocol", "bbox", "coco", "voc07", "voc10"]
    assert "roi_heads.res5 (4)" in log(tmp_path)  # the extra norm


def test_random_weights_have_to_be_asked_for_and_are_logged(tmp_path: Path, scenes: Any) -> None:
    entry = scenes.voc("c4_random")
    run(
        command(C4, tmp_path, entry, "MODEL.WEIGHTS", "", "SOLVER.MAX_ITER", 1), "--resume-or-start"
    )
    assert 'MODEL.WEIGHTS is "": the whole detector starts from random weights' in log(tmp_path)
    assert f"{tmp_path} has no checkpoint: a new run is started" in log(tmp_path)


def test_the_weights_arrive_in_training(tmp_path: Path, scenes: Any, encoder_file: Path) -> None:
    arguments = command(C4, tmp_path, scenes.coco("arrive"), "MODEL.WEIGHTS", encoder_file)
    cfg = setup(arguments)
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=False)
    expected = torch.load(encoder_file.with_name("model_final.pth"))["model"]
    found = trainer.model.state_dict()
    assert torch.equal(found["backbone.stem.conv1.weight"], expected["encoder.conv1.weight"])
    key = "encoder.layer4.1.bn2.running_var"
    assert torch.equal(found["roi_heads.res5.1.conv2.norm.running_var"], expected[key])


def test_a_file_that_does_not_fit_stops_the_trainer_itself(
    tmp_path: Path, scenes: Any, checkpoint_file: Path
) -> None:
    """Also for those who use the class without train_net."""
    cfg = setup(command(C4, tmp_path, scenes.coco("misfit")))
    cfg.defrost()
    cfg.MODEL.WEIGHTS = str(checkpoint_file)
    with pytest.raises(ValueError, match="model_final.pth is not converted"):
        Trainer(cfg).resume_or_load(resume=False)


def random_run(output: Path, entry: dict[str, Any], encoder_file: Path) -> list[str]:
    """Six iterations with all that is random: order, sizes, flips, anchors, proposals, workers."""
    return command(
        C4,
        output,
        entry,
        *("MODEL.WEIGHTS", encoder_file, "INPUT.MIN_SIZE_TRAIN", (56, 64, 72), "SEED", 3),
        *("SOLVER.MAX_ITER", 6, "SOLVER.STEPS", (2, 4), "SOLVER.BASE_LR", 0.01),
        *("SOLVER.CHECKPOINT_PERIOD", 3, "DATALOADER.NUM_WORKERS", 2),
        *("TEST.EVAL_PERIOD", 2, "TEST.PRECISE_BN.ENABLED", True),
    )


class Stop(Exception):
    """Interrupts a run."""


def test_resuming_is_going_on(tmp_path: Path, scenes: Any, encoder_file: Path) -> None:
    """Six iterations, and three and three, end in the same bits: no state is lost."""
    entry = scenes.coco("resumed")
    straight, resumed = tmp_path / "straight", tmp_path / "resumed"
    run(random_run(straight, entry, encoder_file))

    arguments = random_run(resumed, entry, encoder_file)
    run_step = Trainer.run_step

    def interrupted(self: Trainer) -> None:
        if self.iter == 3:
            raise Stop
        run_step(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "run_step", interrupted)
        with pytest.raises(Stop):
            run(arguments)
    assert (resumed / "last_checkpoint").read_text() == "model_0000002.pth"
    saved = torch.load(resumed / "model_0000002.pth")  # weights_only: tensors and primitives

    trainer = Trainer(setup(["--resume", *arguments]))
    trainer.resume_or_load(resume=True)
    assert trainer.start_iter == 3
    optimizer = saved["trainer"]["_trainer"]["optimizer"]
    restored = trainer.optimizer.state_dict()
    assert len(restored["state"]) == len(optimizer["state"]) > 60
    for index, state in optimizer["state"].items():
        assert state["momentum_buffer"].abs().max() > 0
        assert torch.equal(restored["state"][index]["momentum_buffer"], state["momentum_buffer"])
    # One of two steps has passed: a tenth of the learning rate.
    assert [group["lr"] for group in trainer.optimizer.param_groups] == pytest.approx(
        [0.001] * len(optimizer["param_groups"])
    )
    assert trainer.scheduler.last_epoch == 3

    run(arguments, "--resume")
    assert f"Resumed from {resumed}/model_0000002.pth, at iteration 3" in log(resumed)
    first = torch.load(straight / "model_final.pth")
    second = torch.load(resumed / "model_final.pth")
    assert second["iteration"] == first["iteration"] == 5
    start = saved["model"]
    for name, tensor in first["model"].items():
        moved = (tensor - start[name]).abs().max()
        assert torch.equal(second["model"][name], tensor), name
        assert moved > 0 or not name.endswith("conv1.weight")


def test_resuming_another_network_is_an_error(
    tmp_path: Path, scenes: Any, encoder_file: Path
) -> None:
    entry = scenes.coco("other_network")
    opts = ("MODEL.WEIGHTS", encoder_file, "SOLVER.MAX_ITER", 1)
    run(command(C4, tmp_path, entry, *opts))
    with pytest.raises(ValueError, match="does the config describe the network that was saved"):
        run(command(FPN, tmp_path, entry, *opts), "--resume")
    (tmp_path / "model_final.pth").unlink()
    with pytest.raises(FileNotFoundError, match="last_checkpoint names 'model_final.pth'"):
        run(command(C4, tmp_path, entry, *opts), "--resume")


def test_a_loss_that_is_not_finite_stops_the_run(
    tmp_path: Path, scenes: Any, encoder_file: Path
) -> None:
    opts = ("MODEL.WEIGHTS", encoder_file, "SOLVER.BASE_LR", 1e12, "SOLVER.MAX_ITER", 20)
    with pytest.raises(FloatingPointError, match="infinite or NaN|not finite|Inf"):
        run(command(C4, tmp_path, scenes.coco("diverging"), *opts))
    assert not (tmp_path / "last_checkpoint").exists()


def test_files_are_not_opened_more_often_than_needed(
    tmp_path: Path, own_scenes: Any, encoder_file: Path
) -> None:
    weights = Path(shutil.copy(encoder_file, tmp_path / "encoder.pkl"))
    # Precise BatchNorm would build a second loader of the training data.
    opts = ("MODEL.WEIGHTS", weights, "SOLVER.MAX_ITER", 1, "TEST.PRECISE_BN.ENABLED", False)
    with opened_files() as opened:
        run(command(FPN, tmp_path / "coco", own_scenes.coco("opened_coco"), *opts))
    assert opened[weights] == 1  # checked and loaded
    assert opened[own_scenes.root / "coco.json"] == 1  # for checks, training, testing and scoring
    with opened_files() as opened:
        run(command(C4, tmp_path / "voc", own_scenes.voc("opened_voc"), *opts))
    files = sorted((own_scenes.root / "Annotations").iterdir())
    assert [opened[file] for file in files] == [1] * len(files)


def test_the_evaluator_is_that_of_the_data_set(tmp_path: Path, scenes: Any) -> None:
    cfg = setup(command(C4, tmp_path, scenes.voc("by_kind")))
    assert isinstance(Trainer.build_evaluator(cfg, "by_kind"), DatasetEvaluator)
