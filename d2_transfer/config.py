"""Detectron2's config with this package's keys, and the checks of it before training."""

from __future__ import annotations

import logging
from collections.abc import Iterable

import torch
from detectron2 import config as d2_config
from detectron2.config import CfgNode
from detectron2.modeling import (
    BACKBONE_REGISTRY,
    META_ARCH_REGISTRY,
    ROI_HEADS_REGISTRY,
)
from fvcore.common.registry import Registry

import d2_transfer.modeling  # noqa: F401 (the names that a config may have)
from cwrgp.config.files import FileConfig
from cwrgp.models.resnet import BY_DEPTH
from cwrgp.suggestions import suggest
from cwrgp.trackers.build import check_trackers
from d2_transfer.data.load import MASKLESS, MAX_UNREADABLE_SHARE
from d2_transfer.data.settle import check_names
from d2_transfer.number_format import DTYPES, LAYOUTS
from d2_transfer.scoring.coco import BACKENDS

logger = logging.getLogger(__name__)

_NORMS = ("BN", "SyncBN", "FrozenBN", "GN", "nnSyncBN", "naiveSyncBN", "naiveSyncBN_N", "LN", "")


def add_transfer_config(cfg: CfgNode) -> None:
    """Adds the keys of this package to a config of Detectron2, in place."""
    # Data sets to register before they are used: a list of dictionaries, see
    # `d2_transfer.data.entries.parse_entry`.
    cfg.DATASETS.CUSTOM = []
    # A validation set, such as NAME_90to100percent, or (): evaluated while training instead of the
    # test sets, which are evaluated once, at the end, with the weights of its highest box AP.
    cfg.DATASETS.VAL = ()
    # Names of the classes in the order of the model's numbers. Empty: those of the training data.
    # A run stores them here, in its config.yaml.
    cfg.DATASETS.CLASSES = []
    # Refuse whatever would be mended or skipped in the data.
    cfg.DATASETS.STRICT = False
    # Of subsets such as coco_2017_train_1percent: which images they have.
    cfg.DATASETS.SUBSET_SEED = 0
    # Largest share of a data set's images that cannot be read and are skipped, rounded up.
    cfg.DATASETS.MAX_UNREADABLE_SHARE = MAX_UNREADABLE_SHARE
    # What becomes of an object without a usable mask, where masks are used: "box" trains its box
    # alone, "skip" drops it.
    cfg.DATASETS.MASKLESS = MASKLESS[0]
    # Values of black and white of images with more than 8 bits per channel, [low, high]. Empty: 0
    # and 65535; float images are refused, and 16-bit ones that use 12 bits only.
    cfg.INPUT.PIXEL_RANGE = []
    # 0: the classes of the training data are counted.
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = 0
    cfg.MODEL.RETINANET.NUM_CLASSES = 0
    # Where records are kept besides OUTPUT_DIR/metrics.json: tensorboard, wandb (pip install
    # 'cwrgp[wandb]'), or none with [].
    cfg.LOGGERS = ["tensorboard"]
    # What computes COCO's metric: hotcoco, or pycocotools, the reference, which takes 50 times as
    # long.
    cfg.TEST.COCO_BACKEND = BACKENDS[0]
    # Evaluations in a row without a higher box AP on DATASETS.VAL after which training ends.
    # 0: never.
    cfg.TEST.PATIENCE = 0
    # Images on which predictions are drawn for the trackers: of DATASETS.VAL, otherwise of the
    # first test set.
    cfg.TEST.SHOWN_IMAGES = 4
    # Of SOLVER.AMP.ENABLED True: auto, fp32, bf16, or fp16, which needs a GPU. auto measures on a
    # CPU; on a GPU it is bf16 where that is supported, otherwise fp16.
    cfg.SOLVER.AMP.DTYPE = "auto"
    # Memory format of images and weights: auto, contiguous, channels_last.
    cfg.SOLVER.AMP.MEMORY_FORMAT = "auto"


class TransferConfig(FileConfig, CfgNode):
    """Detectron2's CfgNode, which also upgrades old files, with the file rules of `FileConfig`."""


def get_cfg() -> TransferConfig:
    """Detectron2's defaults and this package's keys."""
    cfg = TransferConfig(d2_config.get_cfg())
    add_transfer_config(cfg)
    return cfg


def choose_device(cfg: CfgNode) -> None:
    """Sets ``MODEL.DEVICE`` to ``cpu`` where there is no GPU, in place, and logs it."""
    if cfg.MODEL.DEVICE.startswith("cuda") and not torch.cuda.is_available():
        logger.warning(f"MODEL.DEVICE {cfg.MODEL.DEVICE}: no GPU is available, the CPU is used")
        cfg.MODEL.DEVICE = "cpu"


def validate_cfg(cfg: CfgNode, *, eval_only: bool = False, num_processes: int = 1) -> None:
    """Checks a config whose custom data sets are registered.

    Args:
        cfg: complete, with its device chosen.
        eval_only: whether it is for evaluation, which ignores what only training reads.
        num_processes: over which a batch is spread.

    Raises:
        FileNotFoundError: files of a data set are missing.
        ValueError: what is wrong, in one line that names the key.
    """
    check_model(cfg)
    _check_name("INPUT.MASK_FORMAT", cfg.INPUT.MASK_FORMAT, ("polygon", "bitmask"))
    _check_name("TEST.COCO_BACKEND", cfg.TEST.COCO_BACKEND, BACKENDS)
    if not eval_only:
        _check_solver(cfg, num_processes)
        check_trackers(cfg.LOGGERS, "LOGGERS")
    _check_name("DATASETS.MASKLESS", cfg.DATASETS.MASKLESS, MASKLESS)
    share = cfg.DATASETS.MAX_UNREADABLE_SHARE
    if not 0 <= share <= 1:
        raise ValueError(f"DATASETS.MAX_UNREADABLE_SHARE {share} is not in 0 to 1")
    if cfg.DATASETS.SUBSET_SEED < 0:
        raise ValueError(f"DATASETS.SUBSET_SEED {cfg.DATASETS.SUBSET_SEED} is negative")
    splits = ["TEST"] if eval_only else ["TRAIN", "TEST"]
    for split in splits:
        if not cfg.DATASETS[split]:
            raise ValueError(f"DATASETS.{split} is empty: name one data set or more")
    if not eval_only:
        _check_validation(cfg)
        splits.append("VAL")
    for split in splits:
        check_names(f"DATASETS.{split}", cfg.DATASETS[split], masks=cfg.MODEL.MASK_ON)


def _check_validation(cfg: CfgNode) -> None:
    names, patience = cfg.DATASETS.VAL, cfg.TEST.PATIENCE
    if len(names) > 1:
        raise ValueError(f"DATASETS.VAL {tuple(names)}: name one data set, which decides")
    for split in ("TRAIN", "TEST"):
        if set(names) & set(cfg.DATASETS[split]):
            raise ValueError(
                f"DATASETS.VAL {names[0]!r} is in DATASETS.{split} too: choose another"
            )
    if patience < 0 or (patience and not (names and cfg.TEST.EVAL_PERIOD > 0)):
        raise ValueError(
            f"TEST.PATIENCE {patience} needs DATASETS.VAL and a TEST.EVAL_PERIOD above 0; 0: train"
            " to the end"
        )
    if cfg.TEST.SHOWN_IMAGES < 0:
        raise ValueError(f"TEST.SHOWN_IMAGES {cfg.TEST.SHOWN_IMAGES} is negative")


def check_model(cfg: CfgNode) -> None:
    """Checks what a detector is built from, and ``INPUT.PIXEL_RANGE``.

    Raises:
        ValueError: what is wrong, in one line that names the key.
    """
    pixel_range = cfg.INPUT.PIXEL_RANGE
    numbers = len(pixel_range) == 2 and all(isinstance(v, int | float) for v in pixel_range)
    if pixel_range and not (numbers and pixel_range[0] < pixel_range[1]):
        raise ValueError(f"INPUT.PIXEL_RANGE {pixel_range} is not [] or [low, high]")
    model = cfg.MODEL
    _check_name("MODEL.META_ARCHITECTURE", model.META_ARCHITECTURE, _names(META_ARCH_REGISTRY))
    _check_name("MODEL.BACKBONE.NAME", model.BACKBONE.NAME, _names(BACKBONE_REGISTRY))
    _check_name("MODEL.RESNETS.NORM", model.RESNETS.NORM, _NORMS)
    _check_name("MODEL.FPN.NORM", model.FPN.NORM, _NORMS)
    if model.META_ARCHITECTURE == "GeneralizedRCNN":
        heads = model.ROI_HEADS.NAME
        _check_name("MODEL.ROI_HEADS.NAME", heads, _names(ROI_HEADS_REGISTRY))
    if "resnet" not in model.BACKBONE.NAME:
        return
    depth, channels = model.RESNETS.DEPTH, model.RESNETS.RES2_OUT_CHANNELS
    if depth not in BY_DEPTH:
        raise ValueError(f"MODEL.RESNETS.DEPTH {depth} is unknown; known: {list(BY_DEPTH)}")
    layout = BY_DEPTH[depth]
    expected = layout.stage_channels[0]
    if channels != expected:
        raise ValueError(
            f"MODEL.RESNETS.RES2_OUT_CHANNELS {channels}: ResNet-{depth} needs {expected}"
        )
    if not layout.bottleneck and model.ROI_HEADS.NAME == "Res5ROIHeads":
        raise ValueError(
            "MODEL.ROI_HEADS.NAME Res5ROIHeads is made of bottleneck blocks, which"
            f" ResNet-{depth} does not have: use Res5ROIHeadsExtraNorm"
        )


def _check_solver(cfg: CfgNode, num_processes: int) -> None:
    solver = cfg.SOLVER
    if solver.IMS_PER_BATCH < 1 or solver.IMS_PER_BATCH % num_processes:
        raise ValueError(
            f"SOLVER.IMS_PER_BATCH {solver.IMS_PER_BATCH} is not a positive multiple of the number"
            f" of processes, {num_processes}"
        )
    for key in ("MAX_ITER", "CHECKPOINT_PERIOD"):
        if solver[key] < 1:
            raise ValueError(f"SOLVER.{key} {solver[key]} is not positive")
    if solver.BASE_LR <= 0:
        raise ValueError(f"SOLVER.BASE_LR {solver.BASE_LR} is not positive")
    amp = solver.AMP
    _check_name("SOLVER.AMP.DTYPE", amp.DTYPE, DTYPES)
    _check_name("SOLVER.AMP.MEMORY_FORMAT", amp.MEMORY_FORMAT, LAYOUTS)
    if amp.ENABLED and amp.DTYPE == "fp16" and not cfg.MODEL.DEVICE.startswith("cuda"):
        raise ValueError(
            f"SOLVER.AMP.DTYPE fp16 needs a GPU, MODEL.DEVICE is {cfg.MODEL.DEVICE}: use auto, fp32"
            " or bf16"
        )


def _check_name(key: str, name: str, known: Iterable[str]) -> None:
    names = list(known)
    if name not in names:
        hint = suggest(name, names, f"known: {', '.join(names)}")
        raise ValueError(f"{key}: unknown {name!r}; {hint}")


def _names(registry: Registry) -> list[str]:
    return [name for name, _ in registry]
