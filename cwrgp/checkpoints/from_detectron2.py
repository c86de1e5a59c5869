"""The backbone of a Detectron2 file, a fine-tuned detector's too, in torchvision's names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml
from torch import Tensor

from cwrgp.checkpoints.check_tensors import check_kind, check_values, describe_untrained
from cwrgp.checkpoints.detectron2_names import detectron2_name, to_torchvision
from cwrgp.checkpoints.encoder import Encoder
from cwrgp.checkpoints.find_resnets import open_container
from cwrgp.checkpoints.pixel_statistics import read_metadata
from cwrgp.models.resnet import ARCHITECTURES, check_resnet, identify_arch

# Where a ResNet's parts may stand: a converted file, C4 (res5 in its head), FPN.
_PREFIXES = ("", "backbone.", "backbone.bottom_up.")
_HEAD = "roi_heads."
# Beside the ResNet under these prefixes: an FPN's layers, the norm after res5.
_BESIDE = ("fpn_", "top_block.", "bottom_up.", "res5.norm.")
_UNKNOWN_STRIDE = (
    "right only for a detector with stride_in_1x1 False, which no tensor shows, and there is no"
    " config.yaml beside the file: stride_in_1x1=False confirms it"
)

# Marks the files that this project writes for Detectron2, which logs it.
AUTHOR = "cwrgp tools/convert_to_d2.py"
STRIDE_KEY = "stride_in_1x1"  # in converted files, where it is true
_PART = re.compile(r"(?:stem\.conv1\.|res[2-5]\.\d+\.).+")


def is_converted(checkpoint: Mapping[str, Any]) -> bool:
    """Whether this project wrote a file for Detectron2."""
    return checkpoint.get("__author__") == AUTHOR


def extract_backbone(checkpoint: Mapping[str, Any]) -> Encoder:
    """Finds the ResNet in a Detectron2 file.

    Args:
        checkpoint: what `cwrgp.checkpoints.reader.read_checkpoint` returns: a converted encoder, or
            a detector with a ResNet backbone (C4 or FPN).

    Returns:
        The encoder, under torchvision's names.

    Raises:
        ValueError: there is none, or it is not complete. The message names the tensor.
    """
    container = "model" if isinstance(checkpoint.get("model"), Mapping) else ""
    tensors = open_container(checkpoint, container)
    prefixes = [p for p in _PREFIXES if any(key.startswith(f"{p}res2.") for key in tensors)]
    if len(prefixes) != 1:
        found = " and ".join(map(repr, prefixes)) or "none of them"
        raise ValueError(
            "the file must have one Detectron2 ResNet, under "
            f"{' or '.join(map(repr, _PREFIXES))}; it has {found}"
        )
    prefix = prefixes[0]
    parts: dict[str, Tensor] = {}
    dropped = {key: "not part of the network" for key in checkpoint if container not in ("", key)}
    for key, value in tensors.items():
        head = _HEAD if prefix == "backbone." and key.startswith(f"{_HEAD}res5.") else prefix
        name = key.removeprefix(head)
        if key.startswith(head) and name.endswith(".num_batches_tracked"):
            dropped[key] = "counter, without effect"  # frozen layers have none
        elif key.startswith(head) and _PART.fullmatch(name):
            if name in parts:
                raise ValueError(f"{key!r}: this tensor of the backbone is in the file twice")
            parts[name] = check_kind(key, value)
        elif key.startswith(prefix or ("stem.", "res")) and not name.startswith(_BESIDE):
            raise ValueError(f"{key!r} is left over: a ResNet backbone has no such tensor")
        else:
            dropped[key] = "not part of the backbone"
    state = to_torchvision(parts)
    arch, stem = identify_arch(state)

    def key_of(name: str) -> str:
        in_head = prefix == "backbone." and name.startswith("layer4.")
        return (_HEAD if in_head else prefix) + detectron2_name(name)

    check_resnet(state, arch, stem, key_of)
    for name, tensor in state.items():
        check_values(key_of(name), tensor)
    return Encoder(
        arch=arch,
        state_dict=state,
        source="detectron2",
        branch="online",
        stem=stem,
        dropped=dropped,
        warnings=tuple(describe_untrained(state)),
        pixels=read_metadata(checkpoint),
    )


def check_stride(
    encoder: Encoder, checkpoint: Mapping[str, Any], file: Path, stated: bool | None
) -> Encoder:
    """Checks that a backbone strides where torchvision's network does, which no tensor shows.

    Args:
        encoder: what `extract_backbone` returns.
        checkpoint: the content of the file. A file that this project converted strides as
            torchvision, unless it states otherwise.
        file: ``config.yaml`` beside it has MODEL.RESNETS.STRIDE_IN_1X1.
        stated: by the user; None: not at all.

    Returns:
        The encoder, with a warning if nothing says where it strides.

    Raises:
        ValueError: it strides in the 1x1 convolutions, or the user and the config disagree.
    """
    if not ARCHITECTURES[encoder.arch].bottleneck:
        return encoder
    config = file.with_name("config.yaml")
    found = _read_stride(config)
    if found is None and is_converted(checkpoint):
        found, config = str(checkpoint.get(STRIDE_KEY)) == "True", file
    if stated is not None and found is not None and stated != found:
        raise ValueError(f"stride_in_1x1={stated!r}, but {config} has STRIDE_IN_1X1 {found}")
    stride = found if stated is None else stated
    if stride is None:
        return replace(encoder, warnings=(_UNKNOWN_STRIDE, *encoder.warnings))
    if stride:
        where = f"{config} has" if found is not None else "the detector was built with"
        raise ValueError(
            f"{where} STRIDE_IN_1X1 True: torchvision's ResNets stride in the 3x3 convolution, so"
            " the same tensors would compute something else there"
        )
    return encoder


def _read_stride(config: Path) -> bool | None:
    """MODEL.RESNETS.STRIDE_IN_1X1 of a file; None if it is not there."""
    if not config.is_file():
        return None
    try:
        content: Any = yaml.safe_load(config.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{config} is not YAML: {' '.join(str(error).split())}") from error
    for key in ("MODEL", "RESNETS", "STRIDE_IN_1X1"):
        content = content.get(key) if isinstance(content, Mapping) else None
    if content is not None and not isinstance(content, bool):
        raise ValueError(f"{config} has STRIDE_IN_1X1 {content!r}, neither True nor False")
    return content
