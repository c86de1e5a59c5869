"""Checks that a file fills a detector: `MODEL.WEIGHTS`, or the checkpoint of ``--resume``.

Detectron2 loads the tensors that fit and warns of the others, so a detector may train from random
weights unnoticed. Here a backbone is filled completely, or the file is refused.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from detectron2.utils.file_io import PathManager
from torch import Tensor

import d2_transfer.model_zoo  # noqa: F401 (cwrgp:// and hf:// for Detectron2's PathManager)
from cwrgp.checkpoints.from_detectron2 import STRIDE_KEY, is_converted
from cwrgp.checkpoints.pixel_statistics import IMAGENET, PixelStatistics, read_metadata
from cwrgp.checkpoints.reader import read_checkpoint
from cwrgp.file_io.path_manager import local_file
from cwrgp.models.resnet import BY_DEPTH

# The names of a ResNet's stages in Detectron2, anywhere in the model.
_STAGE = re.compile(r"(?:^|\.)(?:stem|res[2-5])\.")
_NEW_BESIDE_BACKBONE = ("backbone.fpn_", "backbone.top_block.", "roi_heads.res5.norm.")
_UNCONVERTED = re.compile(r"(?:^|\.)layer1\.0\.conv1\.weight$")


def read_weights(path: str) -> dict[str, Any]:
    """Reads a file for a detector, safely, in the form that Detectron2's checkpointer expects.

    A run checks a file before it builds anything and loads it afterwards; both take one reading.

    Args:
        path: a file, or a URL that Detectron2 knows (``detectron2://``, ``https://``).

    Returns:
        The file's dictionary, with the tensors under ``"model"``. They are not to be changed.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file cannot be read safely, see `cwrgp.checkpoints.reader`.
    """
    # Detectron2's handler of https:// takes files of the same path on two servers for one.
    ours = path.startswith(("http://", "https://"))
    local = local_file(path if ours else PathManager.get_local_path(path))
    state = local.stat()
    content = _read_once(local, state.st_mtime_ns, state.st_size)
    for container in ("model", "state_dict"):
        if isinstance(content.get(container), dict):
            return {**content, "model": dict(content[container])}
    return {"model": dict(content)}


def fits_detectors(path: str) -> bool:
    """Whether a file holds tensors at the top, none of which has a name from before a conversion.

    Raises:
        FileNotFoundError, ValueError: as `read_weights`.
    """
    names = [k for k, v in read_weights(path)["model"].items() if isinstance(v, Tensor)]
    return bool(names) and not any(_UNCONVERTED.search(name) for name in names)


def forget_weights() -> None:
    """Frees what `read_weights` has read."""
    _read_once.cache_clear()


@lru_cache(maxsize=1)
def _read_once(local: Path, _mtime: int, _size: int) -> dict[str, Any]:
    return read_checkpoint(local)


def check_weights(
    weights: Mapping[str, Any], model_state: Mapping[str, Tensor], path: str, complete: bool = False
) -> list[str]:
    """Compares the tensors of a file with those of a detector.

    Args:
        weights: what `read_weights` returns.
        model_state: the detector's state dict; only names and shapes are used.
        path: of the file, for the messages.
        complete: whether every tensor of the detector must come from the file (evaluation,
            resuming) or only those of the backbone (fine-tuning).

    Returns:
        Names of the detector's tensors that the file leaves at their initial value.

    Raises:
        ValueError: the file is not converted, fills nothing, fills the backbone only in part, or
            holds more of a backbone than the detector has.
    """
    tensors = {k: v for k, v in weights["model"].items() if isinstance(v, Tensor)}
    if unconverted := [name for name in tensors if _UNCONVERTED.search(name)]:
        raise ValueError(
            f"{path} is not converted to Detectron2's names (it holds {unconverted[0]!r}): run"
            f" cwrgp-convert {path} OUTPUT.pkl, and load OUTPUT.pkl"
        )
    wanted = [name for name in model_state if not name.endswith(".num_batches_tracked")]
    sources = match_names(wanted, tensors, bool(weights.get("matching_heuristics")))
    if not sources:
        raise ValueError(
            f"{path}: none of its {len(tensors)} tensors belongs to the model; it holds"
            f" {_some(tensors) or 'no tensors'}"
        )
    filled = {
        name for name, key in sources.items() if tensors[key].shape == model_state[name].shape
    }
    uses = Counter(sources[name] for name in filled)
    if several := [key for key, count in uses.items() if count > 1]:
        names = sorted(name for name in filled if sources[name] == several[0])
        raise ValueError(
            f"{path}: {several[0]!r} fits several tensors of the model: {_some(names)}"
        )
    needed = [name for name in wanted if complete or _is_backbone(name)]
    what = "the model" if complete else "the backbone"
    for name in needed:
        if name in sources and name not in filled:
            raise ValueError(
                f"{path}: {sources[name]!r} has shape {tuple(tensors[sources[name]].shape)}, but"
                f" {name!r} of the model {tuple(model_state[name].shape)}: does the config describe"
                " the network that was saved (MODEL.RESNETS.DEPTH, NUM_CLASSES)?"
            )
    if missing := [name for name in needed if name not in filled]:
        raise ValueError(
            f"{path} fills {len(needed) - len(missing)} of {len(needed)} tensors of {what};"
            f" {len(missing)} are missing: {_some(missing)}"
        )
    used = set(sources.values())
    if unused := [key for key in tensors if _is_surplus(key) and key not in used]:
        raise ValueError(
            f"{path} holds {len(unused)} tensors of a backbone that the model does not have:"
            f" {_some(unused)}; is MODEL.RESNETS.DEPTH that of the file?"
        )
    return [name for name in wanted if name not in filled]


def match_names(
    model_names: Iterable[str], file_names: Iterable[str], heuristics: bool
) -> dict[str, str]:
    """Which tensor of a file Detectron2's checkpointer puts into which tensor of the model.

    With ``matching_heuristics`` that is the one whose name is the longest ending, from a dot on, of
    the model's name; otherwise the one of the same name.

    Returns:
        The model's name -> the file's, for those that have one.
    """
    available = set(file_names)
    found = {}
    for name in model_names:
        key = name
        while heuristics and key not in available and "." in key:
            key = key.partition(".")[2]
        if key in available:
            found[name] = key
    return found


def check_weights_for(cfg: CfgNode, path: str, complete: bool = False) -> None:
    """`check_weights` for the detector that a config describes; ``""`` is random weights.

    Raises:
        FileNotFoundError: no such file.
        ValueError: see `check_weights` and `detector_state`; or the config's input or network is
            not that of a converted encoder.
    """
    model_state = detector_state(cfg)
    if not path:
        return
    try:
        weights = read_weights(path)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"MODEL.WEIGHTS {error}") from error
    if is_converted(weights):
        _check_conventions(cfg, weights, path)
    check_weights(weights, model_state, path, complete)


def detector_state(cfg: CfgNode) -> dict[str, Tensor]:
    """Names and shapes of a detector's tensors, which take no memory: they are on the meta device.

    Raises:
        ValueError: Detectron2 cannot build what the config describes.
    """
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.DEVICE = "meta"
    try:
        with torch.device("meta"):
            return build_model(cfg).state_dict()
    except (AssertionError, KeyError, ValueError) as error:
        raise ValueError(f"MODEL describes no detector: {error or 'assertion failed'}") from error


def describe(names: Iterable[str]) -> str:
    """Names of tensors in one line, counted by module."""
    counts = Counter(".".join(name.split(".")[:2]) for name in names)
    return ", ".join(f"{module} ({count})" for module, count in counts.items())


def _check_conventions(cfg: CfgNode, weights: Mapping[str, Any], path: str) -> None:
    """Refuses a config that would feed a converted encoder other input than in pretraining."""
    model = cfg.MODEL
    wrong, options = [], []
    if cfg.INPUT.FORMAT != "RGB":
        wrong.append(f"INPUT.FORMAT {cfg.INPUT.FORMAT}")
        options.append("INPUT.FORMAT RGB")
    found = PixelStatistics(tuple(model.PIXEL_MEAN), tuple(model.PIXEL_STD))
    pixels = read_metadata(weights)
    if pixels is None and max(found.std) <= 1:  # not known, but surely not in units of 0..255
        pixels = IMAGENET
    if pixels is not None and not found.agrees_with(pixels):
        wrong.append(f"MODEL.PIXEL_MEAN {list(found.mean)} MODEL.PIXEL_STD {list(found.std)}")
        options.append(f'MODEL.PIXEL_MEAN "{list(pixels.mean)}"')
        options.append(f'MODEL.PIXEL_STD "{list(pixels.std)}"')
    stride = str(weights.get(STRIDE_KEY)) == "True"
    if BY_DEPTH[model.RESNETS.DEPTH].bottleneck and stride != model.RESNETS.STRIDE_IN_1X1:
        wrong.append(f"MODEL.RESNETS.STRIDE_IN_1X1 {model.RESNETS.STRIDE_IN_1X1}")
        options.append(f"MODEL.RESNETS.STRIDE_IN_1X1 {stride}")
    if wrong:
        raise ValueError(
            f"{path} was not pretrained with {' '.join(wrong)}; set {' '.join(options)}"
        )


def _is_backbone(name: str) -> bool:
    """Whether a detector's tensor comes from pretraining."""
    if name.startswith(_NEW_BESIDE_BACKBONE):
        return False
    return name.startswith(("backbone.", "roi_heads.res5."))


def _is_surplus(key: str) -> bool:
    """Whether a file's tensor that the model does not have shows another backbone."""
    return (
        _STAGE.search(key) is not None
        and not key.startswith(_NEW_BESIDE_BACKBONE)
        and not key.endswith(".num_batches_tracked")
    )


def _some(names: Iterable[str], limit: int = 5) -> str:
    names = list(names)
    return ", ".join(repr(name) for name in names[:limit]) + (", ..." if len(names) > limit else "")
