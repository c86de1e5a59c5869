"""DATA and AUGMENT: the images and their views."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from fvcore.common.config import CfgNode
from PIL import Image
from torch import Tensor

from cwrgp.builders.errors import config_key, config_section
from cwrgp.data.augment import Normalize, build_view_transform
from cwrgp.data.base import LabelledImages
from cwrgp.data.datasets import build_dataset
from cwrgp.data.folders import read_class_list
from cwrgp.data.subsets import ImageSubset, sample_indices
from cwrgp.data.views import Views
from cwrgp.seeding import Stream


def build_images(cfg: CfgNode, split: str) -> LabelledImages | None:
    """The images of a split: "pretrain", or "train" and "test" of a probe.

    A probe's are those of ``EVAL.ROOT`` where it is set.

    Returns:
        None where there is no held-out part.

    Raises:
        ValueError, FileNotFoundError: as :func:`build_dataset`.
    """
    classes: list[str] = []
    if cfg.DATA.NAME == "imagenet100":
        with config_key("DATA.CLASS_LIST"):
            classes = read_class_list(cfg.DATA.CLASS_LIST)
    key, root = root_of(cfg, split)
    counted = cfg.DATA.NAME == "webdataset" and key == "DATA.ROOT"
    with config_key(key):
        return build_dataset(
            cfg.DATA.NAME,
            root,
            "train" if key == "EVAL.TEST_ROOT" else split,
            classes=classes,
            num_samples=cfg.DATA.NUM_SAMPLES if counted else 0,
        )


def root_of(cfg: CfgNode, split: str) -> tuple[str, str]:
    """The key that says where the images of a split are, and its value."""
    if split == "test" and cfg.DATA.NAME == "webdataset" and cfg.EVAL.TEST_ROOT:
        return "EVAL.TEST_ROOT", cfg.EVAL.TEST_ROOT
    if split != "pretrain" and cfg.EVAL.ROOT:
        return "EVAL.ROOT", cfg.EVAL.ROOT
    return "DATA.ROOT", cfg.DATA.ROOT


def build_normalize(cfg: CfgNode, device: torch.device) -> Normalize:
    """The normalisation of images on a device."""
    return Normalize(cfg.DATA.MEAN, cfg.DATA.STD).to(device)


def build_views(cfg: CfgNode) -> Views:
    """The training images and their random views.

    Raises:
        ValueError: fewer images than a batch holds.
    """
    transforms = build_transforms(cfg)
    images = build_images(cfg, "pretrain")
    assert images is not None
    if 0 < cfg.DATA.MAX_IMAGES < len(images):
        indices = sample_indices(len(images), cfg.DATA.MAX_IMAGES, Stream.SUBSET, cfg.SEED)
        images = ImageSubset(images, indices)
    if len(images) < cfg.SOLVER.BATCH_SIZE:
        raise ValueError(
            f"SOLVER.BATCH_SIZE {cfg.SOLVER.BATCH_SIZE} is more than the {len(images)} images "
            f"of DATA.ROOT {cfg.DATA.ROOT} to pretrain on; choose a smaller batch"
        )
    return Views(
        images,
        transforms,
        seed=cfg.SEED,
        max_unreadable=cfg.DATA.MAX_UNREADABLE,
        limit_name="DATA.MAX_UNREADABLE",
    )


def build_transforms(cfg: CfgNode) -> list[Callable[[Image.Image], Tensor]]:
    """The random transform of each of the V views; ``validate_cfg`` has checked the values."""
    changes: list[dict[str, Any]] = cfg.AUGMENT.PER_VIEW
    if not changes:
        with config_section(cfg, "AUGMENT"):
            return [_transform(cfg, {})] * cfg.DATA.NUM_VIEWS
    transforms = []
    for view, change in enumerate(changes):
        with config_key(f"AUGMENT.PER_VIEW, view {view}"):
            transforms.append(_transform(cfg, change))
    return transforms


def _transform(cfg: CfgNode, change: dict[str, Any]) -> Callable[[Image.Image], Tensor]:
    """The transform of AUGMENT with the values of one view in their place."""

    def value(name: str) -> Any:
        # Only what a view uses is read: a key of AUGMENT that every view replaces has no effect.
        if name in change:
            return change[name]
        return cfg.DATA.IMAGE_SIZE if name == "IMAGE_SIZE" else getattr(cfg.AUGMENT, name)

    return build_view_transform(
        image_size=value("IMAGE_SIZE"),
        crop_scale=tuple(value("CROP_SCALE")),
        interpolation=value("INTERPOLATION"),
        crop_first=value("CROP_FIRST"),
        jitter=tuple(value("JITTER")),
        jitter_prob=value("JITTER_PROB"),
        grayscale_prob=value("GRAYSCALE_PROB"),
        blur_prob=value("BLUR_PROB"),
        solarize_prob=value("SOLARIZE_PROB"),
        flip_prob=value("FLIP_PROB"),
    )
