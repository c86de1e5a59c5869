"""What the stages of a ResNet put out, pooled."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchvision.models import ResNet

from cwrgp.models.resnet import ARCHITECTURES

STAGES = ("layer1", "layer2", "layer3", "layer4")


class PooledStages(nn.Module):
    """A ResNet as a function to the mean over the pixels of each stage, side by side.

    Args:
        resnet: under torchvision's names. Its features are those of the last stage.
        arch: a key of `ARCHITECTURES`.
    """

    def __init__(self, resnet: ResNet, arch: str) -> None:
        super().__init__()
        self.resnet = resnet
        self.widths = ARCHITECTURES[arch].stage_channels

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, sum of the widths)."""
        r = self.resnet
        x = r.maxpool(r.relu(r.bn1(r.conv1(images))))
        pooled = []
        for name in STAGES:
            x = getattr(r, name)(x)
            pooled.append(x.mean((-2, -1)))
        return torch.cat(pooled, 1)

    def split(self, x: Tensor) -> dict[str, Tensor]:
        """(n, sum of the widths) -> stage -> (n, width)."""
        return dict(zip(STAGES, x.split(self.widths, 1), strict=True))
