"""Values that a configuration leaves to the machine: chosen once, and kept when the run resumes."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import Any

from fvcore.common.config import CfgNode

from cwrgp.config.aliases import ADDED
from cwrgp.errors import MissingPackage

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


def has_fast_packages() -> bool:
    """Whether the packages of AUGMENT.BACKEND fast are installed."""
    return all(importlib.util.find_spec(package) for package in _FAST_PACKAGES)
