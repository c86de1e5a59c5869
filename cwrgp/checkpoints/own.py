"""What a checkpoint of this project contains: written, checked and upgraded here only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from cwrgp.checkpoints.pixel_statistics import (
    PixelStatistics,
    from_unit_range,
    is_three_numbers,
)
from cwrgp.config.aliases import upgrade_saved

_REQUIRED = {"model": dict, "iteration": int, "config": str, "torch_version": str}
_SECTIONS = ("DATA", "MODEL", "METHOD", "SOLVER")


@dataclass(frozen=True)
class OwnCheckpoint:
    """A checkpoint of a pretraining run, or a published one, which has no training state.

    Attributes:
        model: the method's tensors; those of the encoder begin with ``encoder.``.
        iteration: the last finished iteration, counted from 0.
        config: the run's configuration as nested dictionaries, under its present keys.
        torch_version: the version of PyTorch that wrote it.
        optimizer: its state; None in a published file.
        scaler: state of the loss scaler; None or empty without one.
        num_images: images in an epoch; None in a file that does not say.
    """

    model: dict[str, Tensor]
    iteration: int
    config: dict[str, Any]
    torch_version: str
    optimizer: dict[str, Any] | None = None
    scaler: dict[str, Any] | None = None
    num_images: int | None = None


def pack(
    *,
    model: Mapping[str, Tensor],
    optimizer: Mapping[str, Any],
    scaler: Mapping[str, Any],
    iteration: int,
    config: str,
    num_images: int,
) -> dict[str, Any]:
    """The content of a checkpoint file, from which a run can be resumed.

    Args:
        model: state dict of the method.
        optimizer: state dict of the optimizer.
        scaler: state dict of the loss scaler.
        iteration: the last finished iteration, counted from 0.
        config: the run's configuration as YAML.
        num_images: images in an epoch.
    """
    return {
        "model": model,
        "optimizer": optimizer,
        "scaler": scaler,
        "iteration": iteration,
        "config": config,
        "num_images": num_images,
        "torch_version": str(torch.__version__),
    }


def pack_published(
    saved: OwnCheckpoint,
    *,
    model: Mapping[str, Tensor],
    config: Mapping[str, Any],
    versions: Mapping[str, str],
    metrics: Mapping[str, float],
) -> dict[str, Any]:
    """The content of a published file: no training state, but versions and metrics.

    Args:
        saved: the checkpoint that is published.
        model: its tensors, or some of them.
        config: its configuration, without paths.
        versions: package -> version, of those that publish it.
        metrics: name -> value.
    """
    return {
        "model": dict(model),
        "iteration": saved.iteration,
        "config": yaml.safe_dump(dict(config)),
        "torch_version": saved.torch_version,
        "versions": dict(versions),
        "metrics": dict(metrics),
    }


def unpack(content: Mapping[str, Any], origin: str | Path) -> OwnCheckpoint:
    """Checks the content of a file and upgrades its configuration; the opposite of `pack`.

    Args:
        content: what `cwrgp.checkpoints.reader.read_checkpoint` returns.
        origin: the file, for the messages.

    Raises:
        ValueError: it is not a checkpoint of this project. The message says what is missing.
    """
    wrong = f"{origin} is not a checkpoint of a pretraining run"
    for key, kind in _REQUIRED.items():
        if not isinstance(content.get(key), kind):
            raise ValueError(f"{wrong}: it has no {key!r} of type {kind.__name__}")
    for key, value in content["model"].items():
        if not isinstance(key, str) or not isinstance(value, Tensor) or not _has_values(value):
            raise ValueError(f"{wrong}: {key!r} of its model is a {type(value).__name__}")
    config = read_config(content)
    if config is None or not all(isinstance(config.get(s), dict) for s in _SECTIONS):
        raise ValueError(f"{wrong}: its config does not have the sections {', '.join(_SECTIONS)}")
    return OwnCheckpoint(
        model=content["model"],
        iteration=content["iteration"],
        config=config,
        torch_version=content["torch_version"],
        optimizer=content.get("optimizer"),
        scaler=content.get("scaler"),
        num_images=content.get("num_images"),
    )


def read_config(content: Mapping[str, Any]) -> dict[str, Any] | None:
    """The configuration in a checkpoint under its present keys; None if the file has none.

    Args:
        content: of a checkpoint of any format.
    """
    text = content.get("config")
    if not isinstance(text, str):
        return None
    try:
        config = yaml.safe_load(text)
    except yaml.YAMLError:
        return None
    return upgrade_saved(config) if isinstance(config, dict) else None


def read_pixels(content: Mapping[str, Any]) -> PixelStatistics | None:
    """The normalisation of the input that a run's configuration states; None if it does not."""
    data = (read_config(content) or {}).get("DATA")
    if not isinstance(data, dict):
        return None
    mean, std = data.get("MEAN"), data.get("STD")
    if not is_three_numbers(mean) or not is_three_numbers(std):
        return None
    return from_unit_range(mean, std)


def _has_values(tensor: Tensor) -> bool:
    return not tensor.is_meta and tensor.layout is torch.strided and not tensor.is_quantized
