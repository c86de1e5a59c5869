"""What is said about a config before training."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.config import CfgNode
from repository import REPOSITORY

from cwrgp.cli import load_config
from d2_transfer.config import choose_device, get_cfg, validate_cfg
from d2_transfer.data.registry import register_custom

C4 = REPOSITORY / "configs" / "quick" / "detection_faster_rcnn_r18_c4.yaml"


def config(scenes: Any, *opts: str) -> CfgNode:
    cfg = get_cfg()
    load_config(cfg, str(C4), ["DATASETS.CUSTOM", str([scenes.coco("checked")])])
    for key in ("TRAIN", "TEST"):
        cfg.DATASETS[key] = ("checked",)
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = 2
    cfg.MODEL.DEVICE = "cpu"
    cfg.merge_from_list(list(opts))
    register_custom(cfg.DATASETS.CUSTOM)
    return cfg


def test_custom_data_sets_in_yaml_and_on_the_command_line(scenes: Any, tmp_path: Path) -> None:
    entry = scenes.voc("from_yaml")
    path = tmp_path / "data.yaml"
    path.write_text(
        "VERSION: 2\nDATASETS:\n  CUSTOM:\n  - NAME: from_yaml\n    FORMAT: voc\n"
        f"    ROOT: {entry['ROOT']}\n    SPLIT: all\n    CLASSES: [square, bar]\n"
    )
    cfg = get_cfg()
    load_config(cfg, str(path), [])
    custom = cfg.DATASETS.CUSTOM
    assert custom == [entry]
    again = get_cfg()
    load_config(again, str(path), ["DATASETS.CUSTOM", str([scenes.coco("other")])])
    custom = again.DATASETS.CUSTOM
    assert custom == [scenes.coco("other")]
    # What a run saves can be loaded again.
    path.write_text(cfg.dump())
    saved = get_cfg()
    load_config(saved, str(path), [])
    assert saved.DATASETS == cfg.DATASETS
    with pytest.raises(ValueError, match="DATASETS.CUSTOM 'scenes'"):
        load_config(get_cfg(), str(C4), ["DATASETS.CUSTOM", "scenes"])


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        ("SOLVER: {MAX_ITER: many}", ValueError, "SOLVER.MAX_ITER 'many' must be of type int"),
        ("VERSION: 1\nMODEL: {RESNETS: {NORM: 3}}", ValueError, "NORM 3 must be of type str"),
        ("_BASE_: nowhere.yaml", FileNotFoundError, "_BASE_ nowhere.yaml: there is no file "),
    ],
)
def test_a_wrong_file_is_one_line(
    tmp_path: Path, content: str, error: type[Exception], message: str
) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text(content)
    with pytest.raises(error) as caught:
        load_config(get_cfg(), str(path), [])
    assert str(caught.value).startswith(f"{path}: ") and message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_may_build_on_a_packaged_config(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("_BASE_: detection/Base-RCNN-C4-BN.yaml\nSOLVER: {MAX_ITER: 7, BASE_LR: 1}\n")
    cfg = get_cfg()
    load_config(cfg, str(path), [])
    assert (cfg.SOLVER.MAX_ITER, cfg.SOLVER.BASE_LR) == (7, 1.0)
    assert cfg.MODEL.PIXEL_MEAN == [123.675, 116.280, 103.530]


def test_a_right_config_passes_and_is_not_changed(scenes: Any) -> None:
    cfg = config(scenes)
    before = cfg.clone()
    validate_cfg(cfg)
    validate_cfg(cfg, eval_only=True)
    assert cfg == before


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        (["MODEL.META_ARCHITECTURE", "GeneralizedRCN"], "did you mean GeneralizedRCNN"),
        (["MODEL.BACKBONE.NAME", "build_resnet_backbon"], "did you mean build_resnet_backbone"),
        (["MODEL.ROI_HEADS.NAME", "Res5ROIHeadsExtra"], "did you mean Res5ROIHeadsExtraNorm"),
        (
            ["MODEL.RESNETS.NORM", "naivesyncbn"],
            "MODEL.RESNETS.NORM: unknown 'naivesyncbn'; did you",
        ),
        (
            ["TEST.COCO_BACKEND", "fast"],
            "TEST.COCO_BACKEND: unknown 'fast'; .*hotcoco, pyc",
        ),
        (["MODEL.RESNETS.DEPTH", "20"], "MODEL.RESNETS.DEPTH 20 is unknown; known: .18, 34"),
        (["MODEL.RESNETS.DEPTH", "50"], "RES2_OUT_CHANNELS 64: ResNet-50 needs 256"),
        (["MODEL.RESNETS.RES2_OUT_CHANNELS", "256"], "RES2_OUT_CHANNELS 256: ResNet-18 needs 64"),
        (
            ["MODEL.ROI_HEADS.NAME", "Res5ROIHeads"],
            "does not have: use Res5ROIHeadsExtraNorm",
        ),
        (["DATASETS.MASKLESS", "boxes"], "DATASETS.MASKLESS: unknown 'boxes'; did you mean box"),
        (["DATASETS.MAX_UNREADABLE_SHARE", "2.0"], "MAX_UNREADABLE_SHARE 2.0 is not in 0 to 1"),
        (["INPUT.PIXEL_RANGE", "[255, 0]"], "PIXEL_RANGE .255, 0. is not .. or .low, high."),
        (["INPUT.PIXEL_RANGE", "[4095]"], "PIXEL_RANGE .4095. is not .. or .low, high."),
        (["SOLVER.IMS_PER_BATCH", "0"], "IMS_PER_BATCH 0 is not a positive multiple"),
        (["SOLVER.MAX_ITER", "0"], "SOLVER.MAX_ITER 0 is not positive"),
        (["SOLVER.CHECKPOINT_PERIOD", "-1"], "SOLVER.CHECKPOINT_PERIOD -1 is not positive"),
        (["SOLVER.AMP.DTYPE", "fp8"], "SOLVER.AMP.DTYPE: unknown 'fp8'"),
        (["SOLVER.AMP.MEMORY_FORMAT", "channel_last"], "did you mean channels_last"),
        (
            ["SOLVER.AMP.DTYPE", "fp16"],
            "SOLVER.AMP.DTYPE fp16 needs a GPU, MODEL.DEVICE is cpu: use auto, fp32 or bf16",
        ),
        (["DATASETS.TRAIN", "()"], "DATASETS.TRAIN is empty"),
        (
            ["DATASETS.TEST", "('chequed',)"],
            "DATASETS.TEST: unknown data set 'chequed'; did you .*check",
        ),
    ],
)
def test_a_wrong_config_is_named_by_its_key(scenes: Any, opts: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        validate_cfg(config(scenes, *opts))
    assert "\n" not in str(error.value)


def test_a_batch_that_does_not_divide(scenes: Any) -> None:
    with pytest.raises(ValueError, match="IMS_PER_BATCH 8 is not .* of processes, 3"):
        validate_cfg(config(scenes), num_processes=3)


def test_evaluation_needs_no_training_data(scenes: Any) -> None:
    cfg = config(scenes, "DATASETS.TRAIN", "()", "SOLVER.IMS_PER_BATCH", "0")
    validate_cfg(cfg, eval_only=True)
    with pytest.raises(ValueError, match="DATASETS.TEST is empty"):
        validate_cfg(config(scenes, "DATASETS.TEST", "()"), eval_only=True)


def test_training_needs_data_to_train_on_and_to_evaluate_on(scenes: Any) -> None:
    for key in ("DATASETS.TRAIN", "DATASETS.TEST"):
        with pytest.raises(ValueError, match=f"{key} is empty: name one data set or more"):
            validate_cfg(config(scenes, key, "()"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is used where there is one")
def test_the_cpu_is_chosen_and_said(caplog: pytest.LogCaptureFixture) -> None:
    cfg = get_cfg()
    with caplog.at_level(logging.WARNING):
        choose_device(cfg)
    assert cfg.MODEL.DEVICE == "cpu"
    assert "MODEL.DEVICE cuda: no GPU is available, the CPU is used" in caplog.text
