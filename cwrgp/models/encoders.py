"""torchvision ResNets as encoders: no classifier, and stems for small images."""

from __future__ import annotations

from collections.abc import Callable

import torchvision
from torch import nn

ARCHITECTURES: dict[str, Callable[..., torchvision.models.ResNet]] = {
    "resnet18": torchvision.models.resnet18,
    "resnet34": torchvision.models.resnet34,
    "resnet50": torchvision.models.resnet50,
    "resnet101": torchvision.models.resnet101,
    "resnet152": torchvision.models.resnet152,
}

# The layers before the residual stages. Those for small images reduce the resolution less.
STEMS: dict[str, str] = {
    "imagenet": "7x7 convolution of stride 2, max pooling; the only one that Detectron2 supports",
    "small": "3x3 convolution of stride 1 (CIFAR)",
    "small_pool": "3x3 convolution of stride 1, max pooling (STL-10, Tiny-ImageNet)",
}


def build_encoder(
    arch: str = "resnet50", *, stem: str = "imagenet", zero_init_residual: bool = True
) -> torchvision.models.ResNet:
    """A ResNet that maps images (B, 3, H, W) to features (B, F), under torchvision's names.

    Args:
        arch: a key of :data:`ARCHITECTURES`.
        stem: a key of :data:`STEMS`.
        zero_init_residual: start every residual branch at zero.

    Returns:
        The network; ``encoder.inplanes`` is F (512 or 2048), ``encoder.fc`` the identity.

    Raises:
        ValueError: an unknown architecture or stem.
    """
    if arch not in ARCHITECTURES:
        raise ValueError(f"arch {arch!r} is unknown; choose one of {list(ARCHITECTURES)}")
    if stem not in STEMS:
        raise ValueError(f"stem {stem!r} is unknown; choose one of {list(STEMS)}")
    encoder = ARCHITECTURES[arch](zero_init_residual=zero_init_residual)
    encoder.fc = nn.Identity()
    if stem != "imagenet":
        # With nn.Conv2d's own initialisation, as in the authors' code, not torchvision's.
        encoder.conv1 = nn.Conv2d(3, 64, kernel_size=3, stride=1, padding=1, bias=False)
    if stem == "small":
        encoder.maxpool = nn.Identity()
    return encoder
