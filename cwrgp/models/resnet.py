"""The facts about torchvision's ResNets: architectures, stems, names and shapes of tensors."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Literal

import torch
import torchvision
from torch import Tensor

Stem = Literal["imagenet", "small"]  # as far as the tensors show: the kernel of conv1


@dataclass(frozen=True)
class StemLayout:
    """What precedes the residual stages.

    Attributes:
        kernel: side of the first convolution, in pixels.
        stride: of the first convolution.
        max_pool: whether max pooling of stride 2 follows.
    """

    kernel: int
    stride: int
    max_pool: bool


STEMS: dict[str, StemLayout] = {
    "imagenet": StemLayout(7, 2, True),  # the only one that Detectron2 has
    "small": StemLayout(3, 1, False),  # CIFAR
    "small_pool": StemLayout(3, 1, True),  # STL-10, Tiny-ImageNet
}


@dataclass(frozen=True)
class Arch:
    """An architecture (He et al., 2016; Xie et al., 2017; Zagoruyko & Komodakis, 2016).

    Attributes:
        depth: number of layers.
        bottleneck: whether a block has a third convolution.
        blocks: number of blocks in layer1..4.
        groups: of the 3x3 convolutions; above 1 in ResNeXt.
        width: channels of a group in layer1's 3x3 convolutions.
    """

    depth: int
    bottleneck: bool
    blocks: tuple[int, int, int, int]
    groups: int = 1
    width: int = 64

    @property
    def stage_channels(self) -> tuple[int, int, int, int]:
        """Output channels of layer1..4, which Detectron2 calls res2..5."""
        first = 256 if self.bottleneck else 64
        return first, 2 * first, 4 * first, 8 * first

    @property
    def is_plain(self) -> bool:
        """Whether it is a ResNet of He et al., neither a ResNeXt nor a wide one."""
        return (self.groups, self.width) == (1, 64)


ARCHITECTURES: dict[str, Arch] = {
    "resnet18": Arch(18, False, (2, 2, 2, 2)),
    "resnet34": Arch(34, False, (3, 4, 6, 3)),
    "resnet50": Arch(50, True, (3, 4, 6, 3)),
    "resnet101": Arch(101, True, (3, 4, 23, 3)),
    "resnet152": Arch(152, True, (3, 8, 36, 3)),
    "resnext50_32x4d": Arch(50, True, (3, 4, 6, 3), groups=32, width=4),
    "resnext101_32x8d": Arch(101, True, (3, 4, 23, 3), groups=32, width=8),
    "resnext101_64x4d": Arch(101, True, (3, 4, 23, 3), groups=64, width=4),
    "wide_resnet50_2": Arch(50, True, (3, 4, 6, 3), width=128),
    "wide_resnet101_2": Arch(101, True, (3, 4, 23, 3), width=128),
}

# Depth -> architecture, of those of He et al.
BY_DEPTH: dict[int, Arch] = {a.depth: a for a in ARCHITECTURES.values() if a.is_plain}

_NORM = r"(?:weight|bias|running_mean|running_var|num_batches_tracked)"
_NAME = re.compile(
    rf"conv1\.weight|bn1\.{_NORM}"
    rf"|layer[1-4]\.\d+\.(?:conv[1-3]\.weight|bn[1-3]\.{_NORM}|downsample\.(?:0\.weight|1\.{_NORM}))"
)


def is_resnet_name(name: str) -> bool:
    """Whether torchvision's ResNets have a tensor of that name, apart from ``fc``."""
    return _NAME.fullmatch(name) is not None


def identify_arch(state_dict: Mapping[str, Tensor]) -> tuple[str, Stem]:
    """Identifies the architecture by the kind, number and width of blocks, the stem by ``conv1``.

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
    like = {
        n: a for n, a in ARCHITECTURES.items() if (a.bottleneck, a.blocks) == (bottleneck, blocks)
    }
    if not like:
        kind = "bottleneck" if bottleneck else "basic"
        known = ", ".join(
            f"{n} {a.blocks}" for n, a in ARCHITECTURES.items() if a.bottleneck == bottleneck
        )
        raise ValueError(
            f"{kind} blocks {blocks} in layer1..4 are those of no known ResNet ({known})"
        )
    groups, width = _widths(state_dict)
    for arch, layout in like.items():
        if (layout.groups, layout.width) == (groups, width):
            return arch, _identify_stem(state_dict)
    raise ValueError(
        f"3x3 convolutions of {groups} x {width} channels in layer1 are those of no known ResNet ("
        + ", ".join(f"{n} {a.groups} x {a.width}" for n, a in like.items())
        + "); Detectron2's backbone has no place for others"
    )


def check_resnet(
    state_dict: Mapping[str, Tensor],
    arch: str,
    stem: Stem,
    key: Callable[[str], str] = str,
) -> None:
    """Compares a state dict with its architecture: all tensors there, none left over, shapes equal.

    Args:
        state_dict: tensors under torchvision's names, without ``fc``; ``num_batches_tracked``
            everywhere or nowhere.
        arch: a key of `ARCHITECTURES`.
        stem: whether ``conv1`` is 7x7 or 3x3.
        key: torchvision's name -> the name in the file, for the messages.

    Raises:
        ValueError: names the first tensors at fault.
    """
    expected = dict(resnet_shapes(arch))
    kernel = STEMS[stem].kernel
    expected["conv1.weight"] = (64, 3, kernel, kernel)
    if not any(name.endswith(".num_batches_tracked") for name in state_dict):
        expected = {k: v for k, v in expected.items() if not k.endswith(".num_batches_tracked")}
    missing = [key(name) for name in expected if name not in state_dict]
    if missing:
        raise ValueError(f"{len(missing)} tensors of {arch} are missing: {_first(missing)}")
    extra = [key(name) for name in state_dict if name not in expected]
    if extra:
        raise ValueError(f"{len(extra)} tensors are left over, {arch} has no {_first(extra)}")
    for name, shape in expected.items():
        found = tuple(state_dict[name].shape)
        if found != shape:
            raise ValueError(f"{key(name)!r} has shape {found}, but {arch} needs {shape}")


@cache
def resnet_shapes(arch: str) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a torchvision ResNet's tensors, without ``fc``; not to be modified."""
    with torch.device("meta"):
        network = getattr(torchvision.models, arch)(weights=None)
    return {k: tuple(v.shape) for k, v in network.state_dict().items() if not k.startswith("fc.")}


def _widths(state_dict: Mapping[str, Tensor]) -> tuple[int, int]:
    """Groups, and channels of a group in layer1, by the 3x3 convolutions; the most frequent."""
    found: Counter[tuple[int, int]] = Counter()
    for name, tensor in state_dict.items():
        layer = re.fullmatch(r"layer([1-4])\.\d+\.conv2\.weight", name)
        if layer and tensor.ndim == 4 and tensor.shape[1]:
            groups = tensor.shape[0] // tensor.shape[1]
            found[groups, tensor.shape[1] >> (int(layer[1]) - 1)] += 1
    return found.most_common(1)[0][0] if found else (1, 64)


def _num_blocks(state_dict: Mapping[str, Tensor], layer: int) -> int:
    return len({name.split(".")[1] for name in state_dict if name.startswith(f"layer{layer}.")})


def _identify_stem(state_dict: Mapping[str, Tensor]) -> Stem:
    if "conv1.weight" not in state_dict:
        return "imagenet"  # check_resnet reports the missing tensor
    kernel = tuple(state_dict["conv1.weight"].shape[2:])
    stems: tuple[Stem, ...] = ("imagenet", "small")
    for stem in stems:
        if kernel == (STEMS[stem].kernel,) * 2:
            return stem
    raise ValueError(f"'conv1.weight' has a kernel of {kernel}, not (7, 7) or (3, 3)")


def _first(names: list[str], limit: int = 3) -> str:
    return ", ".join(repr(name) for name in names[:limit]) + (", ..." if len(names) > limit else "")
