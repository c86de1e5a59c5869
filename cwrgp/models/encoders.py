"""torchvision ResNets as encoders: no classifier, and stems for small images."""

from __future__ import annotations

import torchvision
from torch import nn
from torchvision.models.resnet import BasicBlock, Bottleneck

from cwrgp.models.activation_checkpointing import RecomputedResNet
from cwrgp.models.resnet import ARCHITECTURES, STEMS

ENCODERS = tuple(name for name, arch in ARCHITECTURES.items() if arch.is_plain)


def build_encoder(
    arch: str = "resnet50",
    *,
    stem: str = "imagenet",
    zero_init_residual: bool = True,
    activation_checkpointing: bool = False,
) -> torchvision.models.ResNet:
    """A ResNet that maps images (B, 3, H, W) to features (B, F), under torchvision's names.

    Args:
        arch: one of `ENCODERS`.
        stem: a key of `cwrgp.models.resnet.STEMS`.
        zero_init_residual: start every residual branch at zero.
        activation_checkpointing: keep only the inputs of stem and residual blocks for the
            backward pass, which computes the rest again. Weights and names are the same.

    Returns:
        The network; ``encoder.inplanes`` is F (512 or 2048), ``encoder.fc`` the identity.

    Raises:
        ValueError: an unknown architecture or stem.
    """
    if arch not in ENCODERS:
        raise ValueError(f"arch {arch!r} is unknown; choose one of {list(ENCODERS)}")
    if stem not in STEMS:
        raise ValueError(f"stem {stem!r} is unknown; choose one of {list(STEMS)}")
    options = {"zero_init_residual": zero_init_residual}
    if activation_checkpointing:
        facts = ARCHITECTURES[arch]
        block = Bottleneck if facts.bottleneck else BasicBlock
        encoder = RecomputedResNet(block, list(facts.blocks), **options)
    else:
        encoder = getattr(torchvision.models, arch)(**options)
    encoder.fc = nn.Identity()
    layout = STEMS[stem]
    if stem != "imagenet":
        # With nn.Conv2d's own initialisation, as in the authors' code, not torchvision's.
        encoder.conv1 = nn.Conv2d(
            3, 64, layout.kernel, layout.stride, padding=layout.kernel // 2, bias=False
        )
    if not layout.max_pool:
        encoder.maxpool = nn.Identity()
    return encoder
