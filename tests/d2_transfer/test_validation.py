"""The best checkpoint by AP on a validation set, early stopping, and what is refused."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_coco_instances
from detectron2.evaluation import DatasetEvaluator
from repository import REPOSITORY
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import d2_transfer.train_net as train_net
from d2_transfer.shown_predictions import spread
from d2_transfer.trainer import Trainer

C4 = REPOSITORY / "configs/quick/detection_faster_rcnn_r18_c4.yaml"

pytestmark = pytest.mark.filterwarnings("ignore:torch.meshgrid")  # Detectron2's own, on this stack


def arguments(scenes: Any, output: Path, **more: Any) -> list[str]:
    """Six iterations with an evaluation after each; parts of six images."""
    name = scenes.coco("val_scenes")["NAME"]
    options = {
        "OUTPUT_DIR": output,
        "MODEL.WEIGHTS": "",
        "DATASETS.CUSTOM": [scenes.coco(name)],
        "DATASETS.TRAIN": (f"{name}_0to34percent",),
        "DATASETS.VAL": (f"{name}_34to67percent",),
        "DATASETS.TEST": (f"{name}_67to100percent",),
        "INPUT.MIN_SIZE_TRAIN": (64,),
        "INPUT.MIN_SIZE_TEST": 64,
        "TEST.PRECISE_BN.ENABLED": False,
        "TEST.EVAL_PERIOD": 1,
        "SOLVER.IMS_PER_BATCH": 2,
        "SOLVER.MAX_ITER": 6,
        "SOLVER.STEPS": (),
        "SOLVER.AMP.ENABLED": False,
        "SOLVER.CHECKPOINT_PERIOD": 2,
        "SEED": 3,
    }
    pairs = [str(part) for pair in (options | more).items() for part in pair]
    return ["--config-file", str(C4), "--num-gpus", "0", "--resume-or-start", *pairs]


class Scripted(DatasetEvaluator):
    """Stands for AP, which does not rise on six images in six iterations."""

    def __init__(self, trainer_aps: list[float], asked: list[str], name: str) -> None:
        self._aps, self._asked, self._name = trainer_aps, asked, name

    def reset(self) -> None: ...

    def process(self, inputs: Any, outputs: Any) -> None: ...

    def evaluate(self) -> dict[str, dict[str, float]]:
        self._asked.append(self._name)
        return {"bbox": {"AP": self._aps.pop(0) if self._name.endswith("67percent") else 50.0}}


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Lets the validation set have these APs, one after the other; lists who is asked."""

    def script(aps: list[float]) -> list[str]:
        asked: list[str] = []
        evaluator = classmethod(lambda cls, cfg, name: Scripted(aps, asked, name))
        monkeypatch.setattr(Trainer, "build_evaluator", evaluator)
        return asked

    return script


def states(output: Path, name: str) -> dict[str, Any]:
    return torch.load(output / f"{name}.pth", weights_only=True)


def records(output: Path, metric: str) -> dict[int, float]:
    found = [json.loads(line) for line in (output / "metrics.json").read_text().splitlines()]
    return {r["iteration"]: r[metric] for r in found if metric in r}


@pytest.fixture
def tested(monkeypatch: pytest.MonkeyPatch) -> list[torch.Tensor]:
    """A tensor of the model at each evaluation of the test set."""
    seen: list[torch.Tensor] = []
    test = Trainer.test.__func__

    def recorded(cls: Any, cfg: Any, model: Any, evaluators: Any = None) -> Any:
        if cfg.DATASETS.TEST[0].endswith("67to100percent"):
            seen.append(model.state_dict()["proposal_generator.rpn_head.conv.weight"].clone())
        return test(cls, cfg, model, evaluators)

    monkeypatch.setattr(Trainer, "test", classmethod(recorded))
    return seen


def test_the_test_set_is_seen_once_with_the_best_weights(
    tmp_path: Path, scenes: Any, scripted: Any, tested: list[torch.Tensor]
) -> None:
    asked = scripted([1.0, 5.0, math.nan, 3.0, 5.0, 4.0])
    assert train_net.main(arguments(scenes, tmp_path)) == 0
    val, test = "val_scenes_34to67percent", "val_scenes_67to100percent"
    assert asked == [val] * 6 + [test]
    best = states(tmp_path, "model_best")
    assert best["iteration"] == 1  # the first of two equal ones
    (weights,) = tested
    name = "proposal_generator.rpn_head.conv.weight"
    assert torch.equal(weights, best["model"][name])
    final = states(tmp_path, "model_final")
    assert final["iteration"] == 5 and not torch.equal(weights, final["model"][name])
    assert final["trainer"]["hooks"]["Validation"] == {"best": 5.0, "iteration": 2, "waited": 4}
    # Detectron2 writes every 20 iterations and at the end.
    assert records(tmp_path, "val/bbox/AP") == {5: 4.0}
    assert records(tmp_path, "bbox/AP") == {6: 50.0}
    assert "the weights after 2 iterations, the best on the validation set (AP 5.00)" in (
        tmp_path / "log.txt"
    ).read_text().replace("\n", " ")


def test_patience_ends_the_training_also_after_a_resume(
    tmp_path: Path,
    scenes: Any,
    scripted: Any,
    tested: list[torch.Tensor],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    aps = [2.0, 1.0, 2.0, 9.0]
    asked = scripted(aps)
    assert train_net.main(arguments(scenes, tmp_path, **{"TEST.PATIENCE": 2})) == 0
    assert aps == [9.0] and len(asked) == 4
    assert states(tmp_path, "model_best")["iteration"] == 0
    assert states(tmp_path, "model_final")["iteration"] == 2
    log = (tmp_path / "log.txt").read_text()
    told = (
        "no higher AP on the validation set in 2 evaluations: the best is 2.00, after 1 iteration"
    )
    assert told in " ".join(log.split()) and "Traceback" not in log
    # The same command once more: the test set is evaluated again, nothing is trained.
    assert train_net.main(arguments(scenes, tmp_path, **{"TEST.PATIENCE": 2})) == 0
    assert aps == [9.0] and asked[4:] == ["val_scenes_67to100percent"]
    assert torch.equal(*tested)


@pytest.mark.slow
def test_a_killed_run_ends_as_an_uninterrupted_one(
    tmp_path: Path, scenes: Any, scripted: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    aps = [1.0, 4.0, 3.0, 2.0, 1.0, 6.0]
    scripted(list(aps))
    more = {"TEST.PATIENCE": 3}
    assert train_net.main(arguments(scenes, whole, **more)) == 0
    run_step = Trainer.run_step

    class Killed(BaseException):
        pass

    def dying(self: Trainer) -> None:
        if self.iter == 3:
            raise Killed
        run_step(self)

    scripted(list(aps))
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Trainer, "run_step", dying)
        train_net.main(arguments(scenes, killed, **more))
    # The last checkpoint is that of iteration 1, before the third evaluation.
    scripted(aps[2:])
    assert train_net.main(arguments(scenes, killed, **more)) == 0
    for name in ("model_best", "model_final"):
        a, b = states(whole, name), states(killed, name)
        assert a["iteration"] == b["iteration"]
        assert a["trainer"]["hooks"] == b["trainer"]["hooks"]
        for key, tensor in a["model"].items():
            assert torch.equal(tensor, b["model"][key]), key


def test_what_is_refused(tmp_path: Path, scenes: Any, capsys: pytest.CaptureFixture[str]) -> None:
    def refused(**more: Any) -> str:
        assert train_net.main(arguments(scenes, tmp_path / "x", **more)) == 2
        return capsys.readouterr().err

    same = ("val_scenes_67to100percent",)
    assert (
        "DATASETS.VAL 'val_scenes_67to100percent' is in DATASETS.TEST too: choose another"
        in refused(**{"DATASETS.VAL": same})
    )
    text = refused(**{"DATASETS.VAL": ("val_scenes_17to67percent",)})
    assert re.search(r"1 of its 3 images are in DATASETS.TRAIN too, the first \S+png: take", text)
    text = refused(**{"DATASETS.TEST": ("val_scenes",)})
    assert "2 of its 2 images are in DATASETS.TEST too" in text
    two = ("val_scenes_34to50percent", "val_scenes_50to67percent")
    assert "name one data set, which decides" in refused(**{"DATASETS.VAL": two})
    for more in ({"DATASETS.VAL": ()}, {"TEST.EVAL_PERIOD": 0}):
        text = refused(**{"TEST.PATIENCE": 1, **more})
        assert "TEST.PATIENCE 1 needs DATASETS.VAL and a TEST.EVAL_PERIOD above 0" in text
    assert "TEST.SHOWN_IMAGES -1 is negative" in refused(**{"TEST.SHOWN_IMAGES": -1})
    assert not (tmp_path / "x").exists()


def test_images_that_detectron2_reads_are_kept_apart_too(
    tmp_path: Path, scenes: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "val_read_by_detectron2"
    metadata, images = {"thing_classes": ["square", "bar"]}, str(scenes.root / "JPEGImages")
    register_coco_instances(name, metadata, str(scenes.root / "coco.json"), images)
    try:
        val = f"{name}_50to100percent"
        sets = {"CUSTOM": [], "TRAIN": (name,), "VAL": (val,), "TEST": (f"{name}_0to50percent",)}
        more = {f"DATASETS.{key}": value for key, value in sets.items()}
        assert train_net.main(arguments(scenes, tmp_path, **more)) == 2
        error = capsys.readouterr().err
        assert f"{val!r}: 3 of its 3 images are in DATASETS.TRAIN too" in error
    finally:
        for part in [one for one in DatasetCatalog.list() if one.startswith(name)]:
            DatasetCatalog.remove(part)
            MetadataCatalog.remove(part)


def test_predictions_are_shown(tmp_path: Path, scenes: Any) -> None:
    more = {
        "TEST.SHOWN_IMAGES": 3,
        "TEST.EVAL_PERIOD": 2,
        "SOLVER.MAX_ITER": 3,
        "DATASETS.VAL": (),
        "DATASETS.TEST": ("val_scenes",),
        # All detections have a score above the limit.
        "MODEL.ROI_HEADS.SCORE_THRESH_TEST": 0.0,
    }
    whole, without = tmp_path / "whole", tmp_path / "without"
    assert train_net.main(arguments(scenes, whole, **more)) == 0
    events = EventAccumulator(str(whole), size_guidance={"images": 0}).Reload()
    names = [f"predictions/{number:06d}.png" for number in (0, 2, 5)]
    assert events.Tags()["images"] == names
    for name in names:
        assert [image.step for image in events.Images(name)] == [2]  # written at the end
        # 64 px, drawn twice as large.
        assert {(i.width, i.height) for i in events.Images(name)} == {(128, 128)}
    # Of a validation set, if there is one.
    chosen = tmp_path / "chosen"
    of_val = {"TEST.SHOWN_IMAGES": 2, "SOLVER.MAX_ITER": 1}
    assert train_net.main(arguments(scenes, chosen, **of_val)) == 0
    shown = EventAccumulator(str(chosen), size_guidance={"images": 0}).Reload().Tags()["images"]
    val = {Path(r["file_name"]).name for r in DatasetCatalog.get("val_scenes_34to67percent")}
    assert {name.removeprefix("predictions/") for name in shown} == val
    # They change nothing.
    assert train_net.main(arguments(scenes, without, **{**more, "TEST.SHOWN_IMAGES": 0})) == 0
    a, b = (states(folder, "model_final")["model"] for folder in (whole, without))
    assert all(torch.equal(tensor, b[key]) for key, tensor in a.items())


def test_spread() -> None:
    assert spread(range(101), 5) == [0, 25, 50, 75, 100]
    assert spread(range(3), 5) == [0, 1, 2]
    assert spread(range(9), 1) == [0] and spread([], 4) == []
    assert isinstance(spread(np.arange(3), 2), list)
