"""A ResNet's tensors in torchvision's names <-> Detectron2's, strict in both directions."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

# Modules: torchvision's name -> Detectron2's, of the stem and within a block.
_STEM = {"conv1": "stem.conv1", "bn1": "stem.conv1.norm"}
_BLOCK = {
    **{f"conv{number}": f"conv{number}" for number in (1, 2, 3)},
    **{f"bn{number}": f"conv{number}.norm" for number in (1, 2, 3)},
    "downsample.0": "shortcut",
    "downsample.1": "shortcut.norm",
}
_STEM_BACK = {new: name for name, new in _STEM.items()}
_BLOCK_BACK = {new: name for name, new in _BLOCK.items()}
_NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def is_detectron2_name(name: str) -> bool:
    """Whether this is a tensor of a ResNet's first stage in Detectron2, a detector's too."""
    return (
        re.fullmatch(r"(?:backbone\.)?(?:bottom_up\.)?res2\.\d+\.conv1\.weight", name) is not None
    )


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
    module, _, leaf = name.rpartition(".")
    if block := re.fullmatch(r"layer([1-4])\.(\d+)\.(.+)", module):
        place, new = f"res{int(block[1]) + 1}.{block[2]}.", _BLOCK.get(block[3])
    else:
        place, new = "", _STEM.get(module)
    if new is None or leaf not in _leaves(new):
        raise ValueError(f"{name!r} is not a tensor of a torchvision ResNet without its classifier")
    return f"{place}{new}.{leaf}"


def _torchvision_name(name: str) -> str:
    module, _, leaf = name.rpartition(".")
    if block := re.fullmatch(r"res([2-5])\.(\d+)\.(.+)", module):
        place, new = f"layer{int(block[1]) - 1}.{block[2]}.", _BLOCK_BACK.get(block[3])
    else:
        place, new = "", _STEM_BACK.get(module)
    if new is None or leaf not in _leaves(module):
        raise ValueError(f"{name!r} is not a tensor of a Detectron2 ResNet backbone")
    return f"{place}{new}.{leaf}"


def _leaves(module: str) -> tuple[str, ...]:
    """Names of the tensors of a module, whose name is Detectron2's."""
    return _NORM if module.endswith(".norm") else ("weight",)
