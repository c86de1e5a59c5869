"""DATA and AUGMENT: the images and their views."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Generator
from typing import Any

import torch
from fvcore.common.config import CfgNode
from torch import Tensor

from cwrgp.builders.errors import config_key, config_section
from cwrgp.data.augment.reference import ReferenceViews, build_view_transform
from cwrgp.data.augment.spec import ViewSpec
from cwrgp.data.base import LabelledImages
from cwrgp.data.datasets import build_dataset
from cwrgp.data.folders import read_class_list
from cwrgp.data.loaders import iterate_views
from cwrgp.data.normalize import Normalize
from cwrgp.data.pixel_range import InPixelRange
from cwrgp.data.resident import NotResident, ResidentViews, iterate_resident, load_images
from cwrgp.data.samplers import StepSampler
from cwrgp.data.subsets import ImageSubset, sample_indices
from cwrgp.data.views import ViewMaker, Views
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
        images = build_dataset(
            cfg.DATA.NAME,
            root,
            "train" if key == "EVAL.TEST_ROOT" else split,
            classes=classes,
            num_samples=cfg.DATA.NUM_SAMPLES if counted else 0,
        )
    if images is None or not cfg.DATA.PIXEL_RANGE:
        return images
    with config_key("DATA.PIXEL_RANGE"):
        return InPixelRange(images, *cfg.DATA.PIXEL_RANGE)


def unreadable_limit(cfg: CfgNode, num_images: int) -> tuple[int, str]:
    """The number of unreadable images that are tolerated, and the name of the limit in errors."""
    count, share = cfg.DATA.MAX_UNREADABLE, cfg.DATA.MAX_UNREADABLE_SHARE
    from_share = math.ceil(share * num_images)
    if from_share > count:
        return from_share, f"DATA.MAX_UNREADABLE_SHARE {share:g} of them, rounded up to"
    return count, "DATA.MAX_UNREADABLE"


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


def build_pretraining_images(cfg: CfgNode) -> LabelledImages:
    """The training images, or the sample of DATA.MAX_IMAGES.

    Raises:
        ValueError: fewer images than a batch holds.
    """
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
    return images


def build_views(cfg: CfgNode, images: LabelledImages) -> Views:
    """The training images and their random views."""
    limit, limit_name = unreadable_limit(cfg, len(images))
    return Views(
        images,
        _build_view_maker(cfg, build_specs(cfg)),
        max_unreadable=limit,
        limit_name=limit_name,
    )


def build_batches(
    cfg: CfgNode, views: Views, sampler: StepSampler, device: torch.device
) -> Generator[list[Tensor], None, None]:
    """Batches of V views, uint8 (B, 3, H, W), in the loader's processes or on the device.

    Args:
        cfg: its AUGMENT.DEVICE is not auto any more.
        views: of :func:`build_views`.
        sampler: the keys of the samples of each batch.
        device: of the training.

    Raises:
        ValueError: AUGMENT.DEVICE training for images that differ in size or are too large.
    """
    if cfg.AUGMENT.DEVICE == "workers":
        return iterate_views(
            views,
            sampler,
            num_workers=cfg.DATA.NUM_WORKERS,
            pin_memory=device.type == "cuda",
        )
    try:
        images = load_images(views.reader, cfg.DATA.NUM_WORKERS)
    except NotResident as error:
        raise ValueError(
            f"AUGMENT.DEVICE training needs small images of one size: {error}; set AUGMENT.DEVICE "
            "workers"
        ) from error
    resident = ResidentViews(images.to(device), build_specs(cfg), seed=cfg.SEED)
    return iterate_resident(resident, sampler)


def build_specs(cfg: CfgNode) -> list[ViewSpec]:
    """The augmentation of each of the V views; ``validate_cfg`` has checked the values."""
    changes: list[dict[str, Any]] = cfg.AUGMENT.PER_VIEW
    if not changes:
        with config_section(cfg, "AUGMENT"):
            return [_spec(cfg, {})] * cfg.DATA.NUM_VIEWS
    specs = []
    for view, change in enumerate(changes):
        with config_key(f"AUGMENT.PER_VIEW, view {view}"):
            specs.append(_spec(cfg, change))
    return specs


def _spec(cfg: CfgNode, change: dict[str, Any]) -> ViewSpec:
    """The values of AUGMENT with those of one view in their place."""

    def value(name: str) -> Any:
        # Only what a view uses is read: a key of AUGMENT that every view replaces has no effect.
        if name in change:
            found = change[name]
        else:
            found = cfg.DATA.IMAGE_SIZE if name == "IMAGE_SIZE" else getattr(cfg.AUGMENT, name)
        return tuple(found) if isinstance(found, list) else found

    names = [field.name for field in dataclasses.fields(ViewSpec)]
    return ViewSpec(**{name: value(name.upper()) for name in names})


def _build_view_maker(cfg: CfgNode, specs: list[ViewSpec]) -> ViewMaker:
    # Nobody asks for views here that are made on the device, nor where auto was not resolved, which
    # is an evaluation: neither may need the packages.
    if cfg.AUGMENT.BACKEND != "fast" or cfg.AUGMENT.DEVICE == "training":
        return ReferenceViews([build_view_transform(spec) for spec in specs], seed=cfg.SEED)
    from cwrgp.data.augment.fast import FastViews  # needs the optional packages

    return FastViews(specs, seed=cfg.SEED)
