"""Normalisation of images, as part of the step."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Normalize(nn.Module):
    """uint8 images (B, 3, H, W) -> float32 (x / 255 - mean) / std, on the images' device.

    Args:
        mean: of R, G, B in units of [0, 1].
        std: standard deviation, likewise.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.register_buffer("scale", 1 / (255 * torch.tensor(std).view(-1, 1, 1)))
        self.register_buffer("shift", (torch.tensor(mean) / torch.tensor(std)).view(-1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        return images.to(self.scale.dtype) * self.scale - self.shift
