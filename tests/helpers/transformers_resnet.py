"""A ResNet under the names of Hugging Face's transformers, by a chain of replacements."""

from __future__ import annotations

import re

from torch import Tensor


def renamed(state: dict[str, Tensor], prefix: str = "resnet.") -> dict[str, Tensor]:
    """torchvision's names -> those of ``ResNetForImageClassification``, without its classifier."""
    return {prefix + _rename(name): tensor for name, tensor in state.items()}


def _rename(name: str) -> str:
    name = re.sub(r"^conv1\.", "embedder.embedder.convolution.", name)
    name = re.sub(r"^bn1\.", "embedder.embedder.normalization.", name)
    name = name.replace("downsample.0", "shortcut.convolution")
    name = name.replace("downsample.1", "shortcut.normalization")
    for number in (1, 2, 3):
        name = name.replace(f".conv{number}.", f".layer.{number - 1}.convolution.")
        name = name.replace(f".bn{number}.", f".layer.{number - 1}.normalization.")
    for stage in (1, 2, 3, 4):
        name = re.sub(rf"^layer{stage}\.", f"encoder.stages.{stage - 1}.layers.", name)
    return name
