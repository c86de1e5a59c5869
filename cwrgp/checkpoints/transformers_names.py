"""The tensors of Hugging Face's ResNets (transformers' ``ResNetModel``) <-> torchvision's names."""

from __future__ import annotations

import re

_STEM = {
    "embedder.embedder.convolution": "conv1",
    "embedder.embedder.normalization": "bn1",
}
_PARTS = {"convolution": "conv", "normalization": "bn"}
_SHORTCUT = {"convolution": "downsample.0", "normalization": "downsample.1"}
_BLOCK = r"encoder\.stages\.([0-3])\.layers\.(\d+)\."
_LAYER = re.compile(rf"{_BLOCK}layer\.([0-2])\.(convolution|normalization)")
_SHORTCUT_LAYER = re.compile(rf"{_BLOCK}shortcut\.(convolution|normalization)")
CONVOLUTION = rf"{_BLOCK}layer\.[0-2]\.convolution\.weight"


def to_torchvision(name: str) -> str:
    """torchvision's name of a tensor; the name itself where it has no place in a ResNet."""
    module, _, leaf = name.rpartition(".")
    if found := _LAYER.fullmatch(module):
        stage, block, layer, part = found.groups()
        module = f"layer{int(stage) + 1}.{block}.{_PARTS[part]}{int(layer) + 1}"
    elif found := _SHORTCUT_LAYER.fullmatch(module):
        stage, block, part = found.groups()
        module = f"layer{int(stage) + 1}.{block}.{_SHORTCUT[part]}"
    elif module in _STEM:
        module = _STEM[module]
    else:
        return f"[{name}]" if re.match(r"conv1\.|bn1\.|layer\d", name) else name
    return f"{module}.{leaf}"


def from_torchvision(name: str) -> str:
    """The inverse of `to_torchvision`."""
    module, _, leaf = name.rpartition(".")
    stem = {new: old for old, new in _STEM.items()}
    if module in stem:
        return f"{stem[module]}.{leaf}"
    found = re.fullmatch(r"layer([1-4])\.(\d+)\.(?:(conv|bn)([1-3])|downsample\.([01]))", module)
    if found is None:
        return name
    stage, block, kind, number, shortcut = found.groups()
    place = f"encoder.stages.{int(stage) - 1}.layers.{block}."
    if shortcut is not None:
        return f"{place}shortcut.{('convolution', 'normalization')[int(shortcut)]}.{leaf}"
    part = {"conv": "convolution", "bn": "normalization"}[kind]
    return f"{place}layer.{int(number) - 1}.{part}.{leaf}"
