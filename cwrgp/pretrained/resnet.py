"""What a torchvision ResNet consists of: names, architecture, and whether all of it is there."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from typing import Literal

import torch
import torchvision
from torch import Tensor

Stem = Literal["imagenet", "small"]

# Whether a block has a third convolution; blocks in layer1..4 (He et al., CVPR 2016, table 1).
ARCHITECTURES: dict[str, tuple[bool, tuple[int, int, int, int]]] = {
    "resnet18": (False, (2, 2, 2, 2)),
    "resnet34": (False, (3, 4, 6, 3)),
    "resnet50": (True, (3, 4, 6, 3)),
    "resnet101": (True, (3, 4, 23, 3)),
    "resnet152": (True, (3, 8, 36, 3)),
}

_NORM = r"(?:weight|bias|running_mean|running_var|num_batches_tracked)"
_NAME = re.compile(
    rf"conv1\.weight|bn1\.{_NORM}"
    rf"|layer[1-4]\.\d+\.(?:conv[1-3]\.weight|bn[1-3]\.{_NORM}|downsample\.(?:0\.weight|1\.{_NORM}))"
)


def is_resnet_name(name: str) -> bool:
    """Whether torchvision's ResNets have tensors called so, ``fc`` aside."""
    return _NAME.fullmatch(name) is not None


def identify_arch(state_dict: Mapping[str, Tensor]) -> tuple[str, Stem]:
    """Tells the architecture from the kind and the number of blocks, and the stem from ``conv1``.

    Args:
        state_dict: tensors under torchvision's names; need not be complete (see `check_resnet`).

    Returns:
        torchvision's name (``"resnet50"``), and ``"imagenet"`` for a 7x7 first convolution or
        ``"small"`` for the 3x3 one that small images are trained with.

    Raises:
        ValueError: the blocks are those of no known ResNet, or the stem is neither.
    """
    blocks = tuple(_num_blocks(state_dict, layer) for layer in range(1, 5))
    bottleneck = any(name.endswith(".conv3.weight") for name in state_dict)
    for arch, layout in ARCHITECTURES.items():
        if layout == (bottleneck, blocks):
            return arch, _identify_stem(state_dict)
    kind = "bottleneck" if bottleneck else "basic"
    known = ", ".join(f"{a} {n}" for a, (third, n) in ARCHITECTURES.items() if third == bottleneck)
    raise ValueError(f"{kind} blocks {blocks} in layer1..4 are those of no known ResNet ({known})")


def check_resnet(state_dict: Mapping[str, Tensor], arch: str, stem: Stem, prefix: str = "") -> None:
    """Compares a state dict with its architecture: all tensors there, none left over, shapes equal.

    Args:
        state_dict: tensors under torchvision's names, without ``fc``; ``num_batches_tracked``
            everywhere or nowhere.
        arch: a key of `ARCHITECTURES`.
        stem: whether ``conv1`` is 7x7 or 3x3.
        prefix: what stood before the names in the file, for the messages.

    Raises:
        ValueError: names the first tensors at fault.
    """
    expected = dict(resnet_shapes(arch))
    if stem == "small":
        expected["conv1.weight"] = (64, 3, 3, 3)
    if not any(name.endswith(".num_batches_tracked") for name in state_dict):
        expected = {k: v for k, v in expected.items() if not k.endswith(".num_batches_tracked")}
    missing = [prefix + name for name in expected if name not in state_dict]
    if missing:
        raise ValueError(f"{len(missing)} tensors of {arch} are missing: {_first(missing)}")
    extra = [prefix + name for name in state_dict if name not in expected]
    if extra:
        raise ValueError(f"{len(extra)} tensors are left over, {arch} has no {_first(extra)}")
    for name, shape in expected.items():
        found = tuple(state_dict[name].shape)
        if found != shape:
            raise ValueError(
                f"{prefix + name!r} has shape {found}, but {arch} needs {shape} (wide and grouped"
                " variants are not supported)"
            )


@cache
def resnet_shapes(arch: str) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a torchvision ResNet's tensors, without ``fc``; not to be modified."""
    with torch.device("meta"):
        network = getattr(torchvision.models, arch)(weights=None)
    return {k: tuple(v.shape) for k, v in network.state_dict().items() if not k.startswith("fc.")}


def _num_blocks(state_dict: Mapping[str, Tensor], layer: int) -> int:
    return len({name.split(".")[1] for name in state_dict if name.startswith(f"layer{layer}.")})


def _identify_stem(state_dict: Mapping[str, Tensor]) -> Stem:
    if "conv1.weight" not in state_dict:
        return "imagenet"  # the missing tensor is named by check_resnet
    kernel = tuple(state_dict["conv1.weight"].shape[2:])
    if kernel == (7, 7):
        return "imagenet"
    if kernel == (3, 3):
        return "small"
    raise ValueError(f"'conv1.weight' has a kernel of {kernel}, not (7, 7) or (3, 3)")


def _first(names: list[str], limit: int = 3) -> str:
    return ", ".join(repr(name) for name in names[:limit]) + (", ..." if len(names) > limit else "")
