"""Values that a configuration leaves to the machine: chosen once, and kept when the run resumes."""

from __future__ import annotations

import copy
import importlib.util
import math
from collections.abc import Mapping
from typing import Any

import torch
from fvcore.common.config import CfgNode
from torch import nn

from cwrgp.builders.methods import build_method
from cwrgp.builders.solver import local_batch_size
from cwrgp.config.aliases import ADDED
from cwrgp.engine.precision import DTYPES, Precision
from cwrgp.errors import MissingPackage
from cwrgp.number_format import NumberFormat, Step, choose_format, has_fast_bf16, time_steps
from cwrgp.seeding import forked_generator

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
            before = ADDED[f"AUGMENT.{key}"]
            _keep(augment, key, saved.get("AUGMENT", {}).get(key, before))
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


def resolve_number_format(
    cfg: CfgNode, saved: Mapping[str, Any] | None, device: torch.device
) -> str:
    """Replaces ``auto`` in SOLVER.AMP.DTYPE, and with it in SOLVER.AMP.MEMORY_FORMAT, in place.

    Args:
        cfg: merged and validated, not frozen.
        saved: the configuration in the checkpoint that the run goes on from; None: it starts anew.
        device: of the training. On a CPU the formats are timed, once for each model; all processes
            get the choice of the main one. No random state changes.

    Returns:
        The times, for the log; "" where nothing was measured.
    """
    amp = cfg.SOLVER.AMP
    if not amp.ENABLED:
        return ""
    if saved is not None:
        before = saved.get("SOLVER", {}).get("AMP", {})
        if before.get("ENABLED", True):
            _keep(amp, "DTYPE", before.get("DTYPE", "bf16"))
            _keep(amp, "MEMORY_FORMAT", before.get("MEMORY_FORMAT", "auto"))
    if amp.DTYPE != "auto":
        return ""
    if device.type != "cpu":
        amp.DTYPE = "bf16" if has_fast_bf16(device) else "fp32"
        return ""
    chosen, times = _measured_format(cfg)
    amp.DTYPE = chosen.dtype
    _keep(amp, "MEMORY_FORMAT", chosen.memory_format)
    return times


def _keep(section: CfgNode, key: str, value: Any) -> None:
    """Sets a key that is left to the machine."""
    if section[key] == "auto":
        section[key] = value


def _measured_format(cfg: CfgNode) -> tuple[NumberFormat, str]:
    """The fastest format for the encoder and the projector on views of the run's size."""
    with torch.random.fork_rng(devices=[]):
        method = build_method(cfg)
    network = nn.Sequential(method.encoder, method.projector)
    size, batch = cfg.DATA.IMAGE_SIZE, local_batch_size(cfg)
    key = {"network": str(network), "image_size": size, "batch": batch}

    def measure() -> dict[NumberFormat, float]:
        with (
            Precision(torch.device("cpu"), torch.float32).ieee_fp32(),
            forked_generator(0),
        ):
            return time_steps(lambda chosen: _step(network, chosen, (batch, 3, size, size)), batch)

    return choose_format(key, measure)


def _step(network: nn.Module, chosen: NumberFormat, shape: tuple[int, ...]) -> Step:
    """Forward and backward of a copy of a network in a format, on random images."""
    precision = Precision(torch.device("cpu"), DTYPES[chosen.dtype], chosen.memory_format)
    network = precision.prepare(copy.deepcopy(network))
    images = torch.randn(shape)

    def step(number: int) -> None:
        batch = images[:number].to(memory_format=precision.memory_format)
        with precision.autocast():
            output = network(batch)
        output.float().square().mean().backward()

    return step
