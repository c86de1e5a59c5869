"""The protocols' effective values, against a table of their own, and that every YAML builds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from detectron2.modeling import build_model
from repository import REPOSITORY

from cwrgp.cli import load_config
from d2_transfer.config import get_cfg
from d2_transfer.weights import detector_state

CONFIGS = REPOSITORY / "configs"
DETECTION = sorted(CONFIGS.glob("detection/*.yaml"))
RUNS = [path for path in DETECTION if not path.name.startswith("Base")]
QUICK = sorted(CONFIGS.glob("quick/detection_*.yaml"))

# What all C4 configs of MoCo's detection folder come to: He et al., CVPR 2020, and Detectron2's
# defaults where nothing is said there.
SHARED: dict[str, Any] = {
    "MODEL.META_ARCHITECTURE": "GeneralizedRCNN",
    "MODEL.PIXEL_MEAN": [123.675, 116.28, 103.53],
    "MODEL.PIXEL_STD": [58.395, 57.12, 57.375],
    "MODEL.BACKBONE.NAME": "build_resnet_backbone",
    "MODEL.BACKBONE.FREEZE_AT": 0,
    "MODEL.RESNETS.DEPTH": 50,
    "MODEL.RESNETS.NORM": "naiveSyncBN",
    "MODEL.RESNETS.STRIDE_IN_1X1": False,
    "MODEL.RESNETS.OUT_FEATURES": ["res4"],
    "MODEL.RPN.PRE_NMS_TOPK_TRAIN": 12000,
    "MODEL.RPN.POST_NMS_TOPK_TRAIN": 2000,
    "MODEL.RPN.PRE_NMS_TOPK_TEST": 6000,
    "MODEL.RPN.POST_NMS_TOPK_TEST": 1000,
    "MODEL.ROI_HEADS.NAME": "Res5ROIHeadsExtraNorm",
    "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE": 512,
    "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION": 14,
    "MODEL.ANCHOR_GENERATOR.SIZES": [[32, 64, 128, 256, 512]],
    "MODEL.WEIGHTS": "",
    "INPUT.FORMAT": "RGB",
    "INPUT.MIN_SIZE_TEST": 800,
    "INPUT.MAX_SIZE_TRAIN": 1333,
    "INPUT.MIN_SIZE_TRAIN_SAMPLING": "choice",
    "TEST.PRECISE_BN.ENABLED": True,
    "TEST.PRECISE_BN.NUM_ITER": 200,
    "TEST.EVAL_PERIOD": 0,
    "SOLVER.IMS_PER_BATCH": 16,
    "SOLVER.BASE_LR": 0.02,
    "SOLVER.MOMENTUM": 0.9,
    "SOLVER.WEIGHT_DECAY": 1e-4,
    "SOLVER.WEIGHT_DECAY_NORM": 0.0,
    "SOLVER.GAMMA": 0.1,
    "SOLVER.LR_SCHEDULER_NAME": "WarmupMultiStepLR",
    "SOLVER.WARMUP_FACTOR": 1e-3,
}
COCO: dict[str, Any] = {
    "MODEL.MASK_ON": True,
    "MODEL.ROI_HEADS.NUM_CLASSES": 80,
    "INPUT.MIN_SIZE_TRAIN": (640, 672, 704, 736, 768, 800),
    "DATASETS.TRAIN": ("coco_2017_train",),
    "DATASETS.TEST": ("coco_2017_val",),
    "SOLVER.WARMUP_ITERS": 1000,
}
EXPECTED: dict[str, dict[str, Any]] = {
    "pascal_voc_R_50_C4_24k": {
        "MODEL.MASK_ON": False,
        "MODEL.ROI_HEADS.NUM_CLASSES": 20,
        "INPUT.MIN_SIZE_TRAIN": (480, 512, 544, 576, 608, 640, 672, 704, 736, 768, 800),
        "DATASETS.TRAIN": ("voc_2007_trainval", "voc_2012_trainval"),
        "DATASETS.TEST": ("voc_2007_test",),
        "SOLVER.STEPS": (18000, 22000),
        "SOLVER.MAX_ITER": 24000,
        "SOLVER.WARMUP_ITERS": 100,
    },
    "coco_R_50_C4_2x": {**COCO, "SOLVER.STEPS": (120000, 160000), "SOLVER.MAX_ITER": 180000},
    "coco_R_50_C4_1x": {**COCO, "SOLVER.STEPS": (60000, 80000), "SOLVER.MAX_ITER": 90000},
}


def load(path: Path) -> Any:
    cfg = get_cfg()
    load_config(cfg, str(path), [])
    return cfg


def value_of(cfg: Any, key: str) -> Any:
    for part in key.split("."):
        cfg = cfg[part]
    return cfg


def test_every_protocol_is_in_the_table() -> None:
    assert {path.stem for path in RUNS} == set(EXPECTED)


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.stem)
def test_effective_values(path: Path) -> None:
    cfg = load(path)
    expected = {**SHARED, **EXPECTED[path.stem]}
    assert {key: value_of(cfg, key) for key in expected} == expected


@pytest.mark.parametrize("path", RUNS + QUICK, ids=lambda path: path.stem)
def test_the_header_tells_what_a_reader_needs(path: Path) -> None:
    comments = [line for line in path.read_text().splitlines() if line.startswith("#")]
    header = "\n".join(comments)
    assert f"cwrgp-train-net --config-file {path.parent.name}/{path.name}" in header
    assert "# Expected" in header
    assert "# Hardware" in header
    assert load(path).OUTPUT_DIR.endswith(path.stem)  # two recipes never share a folder


@pytest.mark.parametrize("path", RUNS + QUICK, ids=lambda path: path.stem)
def test_every_config_builds(path: Path) -> None:
    cfg = load(path)
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = cfg.MODEL.ROI_HEADS.NUM_CLASSES or 3  # 0: to be counted
    state = detector_state(cfg)
    assert any(name.startswith(("backbone.stem.", "backbone.bottom_up.stem.")) for name in state)


def test_the_protocols_detector_is_mocos() -> None:
    cfg = load(CONFIGS / "detection" / "coco_R_50_C4_2x.yaml")
    cfg.MODEL.DEVICE = "cpu"
    model = build_model(cfg)
    sizes = {
        name: sum(p.numel() for p in module.parameters())
        for name, module in (("backbone", model.backbone), ("res5", model.roi_heads.res5))
    }
    # ResNet-50 without its classifier has 23,508,032 parameters, and the extra norm 2 * 2048.
    assert sum(sizes.values()) == 23_508_032 + 4096
    assert all(p.requires_grad for p in model.parameters())  # FREEZE_AT 0
