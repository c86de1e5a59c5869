"""A ResNet's tensors in torchvision's names <-> Detectron2's, strict in both directions."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

_NORM = r"(weight|bias|running_mean|running_var|num_batches_tracked)"


def to_detectron2(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Renames a ResNet from torchvision's to Detectron2's names; inverse of `to_torchvision`.

    Args:
        state_dict: tensors under torchvision's names, without ``fc``.

    Returns:
        The same tensors, in the same order, under the names of `build_resnet_backbone`.

    Raises:
        ValueError: a torchvision ResNet has no tensor of that name.
    """
    return {detectron2_name(name): tensor for name, tensor in state_dict.items()}


def to_torchvision(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Renames a ResNet from Detectron2's to torchvision's names; inverse of `to_detectron2`.

    Raises:
        ValueError: a ResNet backbone of Detectron2 has no tensor of that name.
    """
    return {_torchvision_name(name): tensor for name, tensor in state_dict.items()}


def detectron2_name(name: str) -> str:
    """The name of one tensor; raises ValueError as `to_detectron2` does."""
    if name == "conv1.weight":
        return "stem.conv1.weight"
    if match := re.fullmatch(rf"bn1\.{_NORM}", name):
        return f"stem.conv1.norm.{match[1]}"
    if block := re.fullmatch(r"layer([1-4])\.(\d+)\.(.+)", name):
        prefix, part = f"res{int(block[1]) + 1}.{block[2]}", block[3]
        if match := re.fullmatch(r"conv([1-3])\.weight", part):
            return f"{prefix}.conv{match[1]}.weight"
        if match := re.fullmatch(rf"bn([1-3])\.{_NORM}", part):
            return f"{prefix}.conv{match[1]}.norm.{match[2]}"
        if part == "downsample.0.weight":
            return f"{prefix}.shortcut.weight"
        if match := re.fullmatch(rf"downsample\.1\.{_NORM}", part):
            return f"{prefix}.shortcut.norm.{match[1]}"
    raise ValueError(f"{name!r} is not a tensor of a torchvision ResNet without its classifier")


def _torchvision_name(name: str) -> str:
    if name == "stem.conv1.weight":
        return "conv1.weight"
    if match := re.fullmatch(rf"stem\.conv1\.norm\.{_NORM}", name):
        return f"bn1.{match[1]}"
    if block := re.fullmatch(r"res([2-5])\.(\d+)\.(.+)", name):
        prefix, part = f"layer{int(block[1]) - 1}.{block[2]}", block[3]
        if match := re.fullmatch(r"conv([1-3])\.weight", part):
            return f"{prefix}.conv{match[1]}.weight"
        if match := re.fullmatch(rf"conv([1-3])\.norm\.{_NORM}", part):
            return f"{prefix}.bn{match[1]}.{match[2]}"
        if part == "shortcut.weight":
            return f"{prefix}.downsample.0.weight"
        if match := re.fullmatch(rf"shortcut\.norm\.{_NORM}", part):
            return f"{prefix}.downsample.1.{match[1]}"
    raise ValueError(f"{name!r} is not a tensor of a Detectron2 ResNet backbone")
