"""What SOLVER.AMP means: the number format of a fine-tuning, chosen once and kept on resume."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import cycle, islice
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.data import get_detection_dataset_dicts
from detectron2.layers.batch_norm import NaiveSyncBatchNorm
from detectron2.modeling import build_model
from detectron2.utils import comm
from detectron2.utils.events import EventStorage
from torch import nn

from cwrgp.number_format import (
    MEMORY_FORMATS,
    PLAIN,
    NumberFormat,
    Step,
    choose_format,
    has_fast_bf16,
    time_steps,
)
from d2_transfer.data.mapper import TransferMapper
from d2_transfer.mask_loss import omit_maskless
from d2_transfer.mixed_precision import use_number_format

DTYPES = ("auto", "fp32", "bf16", "fp16")
LAYOUTS = ("auto", *MEMORY_FORMATS)


def keep_number_format(cfg: CfgNode, state: Mapping[str, Any]) -> None:
    """Replaces ``auto`` in SOLVER.AMP by the format of the run that goes on, in place.

    Args:
        cfg: not frozen.
        state: what is under ``"trainer"`` in the checkpoint.
    """
    if not cfg.SOLVER.AMP.ENABLED:
        return
    saved = state.get("number_format")
    if saved is None:  # an earlier version's, which had Detectron2's mixed precision
        dtype = "fp16" if "grad_scaler" in state.get("_trainer", {}) else "fp32"
        saved = {"dtype": dtype, "memory_format": "contiguous"}
    _set(cfg, NumberFormat(**saved))


def resolve_number_format(cfg: CfgNode) -> tuple[CfgNode, str]:
    """A config without ``auto`` in SOLVER.AMP; to be called by all processes of a run.

    On a CPU, training steps on images of the run are timed in each format, once for each detector,
    and all processes get the choice of the main one.

    Args:
        cfg: validated, its data sets registered.

    Returns:
        A frozen copy, and the times, for the log; "" where nothing was measured.
    """
    cfg = cfg.clone()
    cfg.defrost()
    times = _resolve(cfg) if cfg.SOLVER.AMP.ENABLED else ""
    cfg.freeze()
    return cfg, times


def _resolve(cfg: CfgNode) -> str:
    amp, times = cfg.SOLVER.AMP, ""
    if amp.DTYPE != "auto":
        layout = "contiguous" if amp.DTYPE == "fp32" else "channels_last"
        chosen = NumberFormat(amp.DTYPE, layout)
    elif cfg.MODEL.DEVICE.startswith("cuda"):
        fast = has_fast_bf16(torch.device(cfg.MODEL.DEVICE))
        chosen = NumberFormat("bf16" if fast else "fp16", "channels_last")
    else:
        chosen, times = _measured_format(cfg)
    _set(cfg, chosen)
    return times


def number_format_of(cfg: CfgNode) -> NumberFormat:
    """The format that a resolved config names."""
    amp = cfg.SOLVER.AMP
    return NumberFormat(amp.DTYPE, amp.MEMORY_FORMAT) if amp.ENABLED else PLAIN


def _set(cfg: CfgNode, chosen: NumberFormat) -> None:
    for key, value in zip(("DTYPE", "MEMORY_FORMAT"), chosen, strict=True):
        if cfg.SOLVER.AMP[key] == "auto":
            cfg.SOLVER.AMP[key] = value


def _measured_format(cfg: CfgNode) -> tuple[NumberFormat, str]:
    images = cfg.SOLVER.IMS_PER_BATCH // comm.get_world_size()
    with torch.random.fork_rng(devices=[]):
        detector = str(build_model(cfg))
    sections = {name: cfg[name] for name in ("MODEL", "INPUT")}
    key = {"network": detector, "images": images, "config": CfgNode(sections).dump()}

    def measure() -> Mapping[NumberFormat, float]:
        batch = _first_images(cfg, images)
        with torch.random.fork_rng(devices=[]):
            return time_steps(lambda chosen: _step(cfg, chosen, batch), images)

    return choose_format(key, measure)


def _first_images(cfg: CfgNode, number: int) -> list[dict[str, Any]]:
    """The first images of the training set as the loader maps them; all of them again if few."""
    images = get_detection_dataset_dicts(cfg.DATASETS.TRAIN)
    mapped = map(TransferMapper(cfg, True), cycle(images))
    return list(islice((image for image in mapped if image is not None), number))


def _step(cfg: CfgNode, chosen: NumberFormat, batch: list[dict[str, Any]]) -> Step:
    """Forward and backward of a new detector in a format."""
    detector = build_model(cfg).train()
    omit_maskless(detector)
    for module in detector.modules():
        if isinstance(module, NaiveSyncBatchNorm):
            module.__class__ = nn.BatchNorm2d  # the other processes wait and would not answer
    use_number_format(detector, chosen)

    def step(images: int) -> None:
        with EventStorage():  # Detectron2's heads write to it
            losses = detector(batch[:images])
        sum(losses.values()).backward()

    return step
