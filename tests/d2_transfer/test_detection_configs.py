"""The protocols' effective values, against a table of their own, and that every YAML builds."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.layers import FrozenBatchNorm2d
from detectron2.modeling import build_model
from repository import REPOSITORY
from torch import nn

from cwrgp.cli import load_config
from d2_transfer.config import check_model, get_cfg
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


@pytest.mark.parametrize("stem", EXPECTED)
def test_effective_values(stem: str) -> None:
    cfg = load(CONFIGS / "detection" / f"{stem}.yaml")
    expected = {**SHARED, **EXPECTED[stem]}
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
    check_model(cfg)
    state = detector_state(cfg)
    depth = cfg.MODEL.RESNETS.DEPTH
    convolutions = [
        name
        for name in state
        if re.match(
            r"(?:backbone\.(?:bottom_up\.)?|roi_heads\.)(?:stem|res\d)\..*conv\d\.weight$", name
        )
    ]
    assert len(convolutions) == depth - 1  # the last of the depth's layers is the classifier


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


def trained(model: nn.Module, part: str) -> set[str]:
    """The modules of a ResNet, such as res4, that have parameters to train."""
    names = [name for name, p in model.named_parameters() if p.requires_grad]
    return {m[1] for name in names if (m := re.search(rf"{part}\.(stem|res\d)\.", name))}


@pytest.mark.parametrize(
    ("stem", "backbone", "head"),
    [
        ("pascal_voc_R_50_C4_24k", {"stem", "res2", "res3", "res4"}, {"res5"}),
        ("pascal_voc_R_50_C4_24k_frozen", set(), {"res5"}),
        ("pascal_voc_R_50_FPN_2fc_24k", {"stem", "res2", "res3", "res4", "res5"}, set()),
        ("pascal_voc_R_50_FPN_2fc_24k_frozen", set(), set()),
    ],
)
def test_what_is_frozen(stem: str, backbone: set[str], head: set[str]) -> None:
    cfg = load(CONFIGS / "detection" / f"{stem}.yaml")
    cfg.MODEL.DEVICE = "meta"
    with torch.device("meta"):
        model = build_model(cfg)
    assert trained(model, r"backbone(?:\.bottom_up)?") == backbone
    assert trained(model, "roi_heads") == head
    # Nothing is trained in a frozen part, its norm included, and FPN and heads always are.
    frozen = [n for n, m in model.named_modules() if isinstance(m, FrozenBatchNorm2d)]
    assert len(frozen) == (0 if backbone else 43 if head else 53)
    new = [p for n, p in model.named_parameters() if n.startswith(("backbone.fpn", "proposal"))]
    assert new and all(p.requires_grad for p in new)


@pytest.mark.parametrize(("head", "norms"), [("2fc", 0), ("4conv1fc", 4 + 4)])
def test_the_two_variants_with_fpn(head: str, norms: int) -> None:
    state = detector_state(load(CONFIGS / "detection" / f"coco_R_50_FPN_{head}_1x.yaml"))
    assert sum(n.startswith("roi_heads.") and n.endswith(".norm.weight") for n in state) == norms
    assert sum(n.startswith("backbone.fpn_") and n.endswith(".norm.weight") for n in state) == 8
    # 2fc: 7 * 7 * 256 -> 1024 -> 1024; 4conv1fc: one layer.
    shapes = [tuple(v.shape) for n, v in state.items() if re.search(r"box_head\.fc\d\.weight", n)]
    assert shapes == [(1024, 12544), (1024, 1024)][: 2 if head == "2fc" else 1]


def test_the_supervised_arm_differs_in_the_weights_and_their_input_only() -> None:
    folder = CONFIGS / "detection"
    for stem in ("pascal_voc_R_50_C4_24k", "coco_R_50_C4_1x", "coco_R_50_C4_2x"):
        plain, arm = load(folder / f"{stem}.yaml"), load(folder / f"{stem}_msra.yaml")
        assert plain.MODEL.PIXEL_MEAN[::-1] == arm.MODEL.PIXEL_MEAN
        for cfg in (plain, arm):
            cfg.MODEL.WEIGHTS = cfg.OUTPUT_DIR = cfg.INPUT.FORMAT = ""
            cfg.MODEL.PIXEL_MEAN = cfg.MODEL.PIXEL_STD = []
        assert (arm.MODEL.RESNETS.STRIDE_IN_1X1, plain.MODEL.RESNETS.STRIDE_IN_1X1) == (True, False)
        arm.MODEL.RESNETS.STRIDE_IN_1X1 = False
        assert arm == plain
