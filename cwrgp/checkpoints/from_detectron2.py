"""The backbone of a Detectron2 file, a fine-tuned detector's too, in torchvision's names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from cwrgp.checkpoints.check_tensors import check_kind, check_values, describe_untrained
from cwrgp.checkpoints.detectron2_names import detectron2_name, to_torchvision
from cwrgp.checkpoints.extract import Encoder
from cwrgp.checkpoints.find_resnets import open_container
from cwrgp.checkpoints.pixel_statistics import read_metadata
from cwrgp.models.resnet import ARCHITECTURES, check_resnet, identify_arch

# Where a ResNet's parts may stand: a converted file, C4 (res5 in its head), FPN.
_PREFIXES = ("", "backbone.", "backbone.bottom_up.")
_HEAD = "roi_heads."
# Beside the ResNet under these prefixes: an FPN's layers, the norm after res5.
_BESIDE = ("fpn_", "top_block.", "bottom_up.", "res5.norm.")
_CONVENTIONS = (
    "right only for a detector with stride_in_1x1 False, which no tensor shows: see"
    " docs/convert.md",
)
_PART = re.compile(r"(?:stem\.conv1\.|res[2-5]\.\d+\.).+")


def extract_backbone(checkpoint: Mapping[str, Any]) -> Encoder:
    """Finds the ResNet in a Detectron2 file, for the export to torchvision.

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
        warnings=(*_CONVENTIONS * ARCHITECTURES[arch].bottleneck, *describe_untrained(state)),
        pixels=read_metadata(checkpoint),
    )
