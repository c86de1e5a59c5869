"""DATA and AUGMENT: the training images and their views."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fvcore.common.config import CfgNode
from PIL import Image
from torch import Tensor

from cwrgp.data.augment import build_view_transform
from cwrgp.data.base import LabelledImages
from cwrgp.data.datasets import build_dataset
from cwrgp.data.subsets import SomeImages, draw
from cwrgp.data.views import Views


def build_images(cfg: CfgNode, split: str) -> LabelledImages | None:
    """The images of a split: "pretrain", or for probes "train" or "test", those of ``EVAL.ROOT``
    where it is set.

    Returns:
        None where there is no held-out part.

    Raises:
        ValueError, FileNotFoundError: as :func:`build_dataset`, or a key is set that means nothing
            for this data set.
    """
    _check_belongs(cfg)
    held_out = cfg.EVAL.TEST_ROOT
    if held_out and split == "test":
        return build_dataset(cfg.DATA.NAME, held_out, "train")
    other = "" if split == "pretrain" else cfg.EVAL.ROOT
    return build_dataset(
        cfg.DATA.NAME,
        other or cfg.DATA.ROOT,
        split,
        class_list=cfg.DATA.CLASS_LIST,
        num_samples=0 if other else cfg.DATA.NUM_SAMPLES,
    )


def _check_belongs(cfg: CfgNode) -> None:
    for key, value, name in (
        ("DATA.CLASS_LIST", cfg.DATA.CLASS_LIST, "imagenet100"),
        ("DATA.NUM_SAMPLES", cfg.DATA.NUM_SAMPLES, "webdataset"),
        ("EVAL.TEST_ROOT", cfg.EVAL.TEST_ROOT, "webdataset"),
    ):
        if value and name != cfg.DATA.NAME:
            raise ValueError(
                f"{key} {value} is for DATA.NAME {name} and means nothing for {cfg.DATA.NAME}; "
                "leave it away"
            )


def build_views(cfg: CfgNode) -> Views:
    """The training images and their random views.

    Raises:
        ValueError: fewer images than a batch holds, or views that cannot be.
    """
    transforms = build_transforms(cfg)
    images = build_images(cfg, "pretrain")
    assert images is not None
    if 0 < cfg.DATA.MAX_IMAGES < len(images):
        images = SomeImages(images, draw(len(images), cfg.DATA.MAX_IMAGES, cfg.SEED))
    if len(images) < cfg.SOLVER.BATCH_SIZE:
        raise ValueError(
            f"SOLVER.BATCH_SIZE {cfg.SOLVER.BATCH_SIZE} is more than the {len(images)} images "
            f"of DATA.ROOT {cfg.DATA.ROOT} to pretrain on; choose a smaller batch"
        )
    return Views(images, transforms, seed=cfg.SEED, max_unreadable=cfg.DATA.MAX_UNREADABLE)


def build_transforms(cfg: CfgNode) -> list[Callable[[Image.Image], Tensor]]:
    """The random transform of each of the V views.

    Raises:
        ValueError: AUGMENT.PER_VIEW has another length than DATA.NUM_VIEWS, an unknown key, or a
            value that cannot be.
    """
    common: dict[str, Any] = {"IMAGE_SIZE": cfg.DATA.IMAGE_SIZE, **cfg.AUGMENT}
    changes: list[dict[str, Any]] = common.pop("PER_VIEW")
    if not changes:
        return [_transform(common)] * cfg.DATA.NUM_VIEWS
    if len(changes) != cfg.DATA.NUM_VIEWS:
        raise ValueError(
            f"AUGMENT.PER_VIEW describes {len(changes)} views, DATA.NUM_VIEWS is "
            f"{cfg.DATA.NUM_VIEWS}; give one dictionary for each view, {{}} where nothing differs"
        )
    transforms = []
    for view, change in enumerate(changes):
        try:
            for key, value in change.items():
                _check(key, value, common)
            transforms.append(_transform(common | change))
        except ValueError as error:
            raise ValueError(f"AUGMENT.PER_VIEW, view {view}: {error}") from error
    return transforms


def _transform(values: dict[str, Any]) -> Callable[[Image.Image], Tensor]:
    return build_view_transform(
        image_size=values["IMAGE_SIZE"],
        crop_scale=tuple(values["CROP_SCALE"]),
        interpolation=values["INTERPOLATION"],
        crop_first=values["CROP_FIRST"],
        jitter=tuple(values["JITTER"]),
        jitter_prob=values["JITTER_PROB"],
        grayscale_prob=values["GRAYSCALE_PROB"],
        blur_prob=values["BLUR_PROB"],
        solarize_prob=values["SOLARIZE_PROB"],
        flip_prob=values["FLIP_PROB"],
    )


def _check(key: str, value: Any, common: dict[str, Any]) -> None:
    """What validate_cfg says of the keys themselves."""
    if key not in common:
        raise ValueError(f"unknown key {key}; choose from {', '.join(sorted(common))}")
    default = common[key]
    numbers = (int, float)
    if isinstance(default, list | tuple):
        fits = isinstance(value, list | tuple) and all(type(v) in numbers for v in value)
        if not fits or len(value) != len(default):
            raise ValueError(f"{key} {value} must be a list of {len(default)} numbers")
    elif type(value) is not type(default) and (type(value), type(default)) != numbers:
        raise ValueError(f"{key} {value!r} must be of type {type(default).__name__}")
    if key == "IMAGE_SIZE" and value < 1:
        raise ValueError(f"IMAGE_SIZE {value} is below 1")
