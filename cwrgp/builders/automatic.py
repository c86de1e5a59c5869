"""Values that a configuration leaves to the machine: chosen once, and kept when the run resumes."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Mapping
from typing import Any

from fvcore.common.config import CfgNode

from cwrgp.config.aliases import ADDED
from cwrgp.errors import MissingPackage

# What SOLVER.EPOCHS 0 aims at, and between which numbers of epochs.
ITERATIONS = 50_000
MIN_EPOCHS, MAX_EPOCHS = 10, 800

_FAST_PACKAGES = ("cv2", "simplejpeg")
_SMALL = ("cifar10", "cifar100", "stl10", "tiny_imagenet")  # images of one small size


def resolve_augmentation(cfg: CfgNode, saved: Mapping[str, Any] | None) -> None:
    """Replaces ``auto`` in AUGMENT.BACKEND and AUGMENT.DEVICE, in place.

    Args:
        cfg: merged and validated, not frozen.
        saved: the configuration in the checkpoint that the run goes on from, as nested
            dictionaries; None: it starts anew.

    Raises:
        ValueError: views on the training's device by the reference, which has none.
        MissingPackage: a package of the fast backend is not installed.
    """
    augment = cfg.AUGMENT
    if saved is not None:
        for key in ("BACKEND", "DEVICE"):
            if augment[key] == "auto":
                before = ADDED[f"AUGMENT.{key}"]
                augment[key] = saved.get("AUGMENT", {}).get(key, before)
    if augment.DEVICE == "auto":
        small = cfg.DATA.NAME in _SMALL and augment.BACKEND != "reference"
        augment.DEVICE = "training" if small else "workers"
    if augment.BACKEND == "auto":
        # Views in batches need no package.
        fast = augment.DEVICE == "training" or has_fast_packages()
        augment.BACKEND = "fast" if fast else "reference"
    if augment.DEVICE == "training" and augment.BACKEND == "reference":
        raise ValueError(
            "AUGMENT.DEVICE training: the reference makes views in the loader's processes only; "
            "set AUGMENT.DEVICE workers, or AUGMENT.BACKEND fast"
        )
    if augment.DEVICE == "workers" and augment.BACKEND == "fast" and not has_fast_packages():
        raise MissingPackage(
            "AUGMENT.BACKEND fast needs OpenCV and simplejpeg: pip install 'cwrgp[fast]'"
        )


def automatic_epochs(num_images: int, batch_size: int) -> int:
    """Epochs that give `ITERATIONS` iterations, between `MIN_EPOCHS` and `MAX_EPOCHS`.

    Args:
        num_images: one batch or more.
        batch_size: of an iteration; what does not fill a batch is not used in an epoch.
    """
    epochs = math.ceil(ITERATIONS / (num_images // batch_size))
    return min(max(epochs, MIN_EPOCHS), MAX_EPOCHS)


def resolve_epochs(cfg: CfgNode, saved: Mapping[str, Any] | None, num_images: int) -> None:
    """Replaces 0 in SOLVER.EPOCHS, in place.

    Args:
        cfg: merged and validated, not frozen.
        saved: as for `resolve_augmentation`; its number of epochs is kept.
        num_images: to pretrain on.
    """
    if cfg.SOLVER.EPOCHS:
        return
    kept = None if saved is None else saved.get("SOLVER", {}).get("EPOCHS")
    cfg.SOLVER.EPOCHS = kept or automatic_epochs(num_images, cfg.SOLVER.BATCH_SIZE)


def describe_epochs(cfg: CfgNode, num_images: int) -> str:
    """How `automatic_epochs` came to its number, for the log."""
    steps = num_images // cfg.SOLVER.BATCH_SIZE
    return (
        f"SOLVER.EPOCHS 0: {ITERATIONS} iterations / {steps} in an epoch, rounded up, at least "
        f"{MIN_EPOCHS} and at most {MAX_EPOCHS}, are {cfg.SOLVER.EPOCHS} epochs"
    )


def has_fast_packages() -> bool:
    """Whether the packages of AUGMENT.BACKEND fast are installed."""
    return all(importlib.util.find_spec(package) for package in _FAST_PACKAGES)
