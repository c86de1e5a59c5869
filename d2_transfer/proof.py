"""The proof of a conversion: torchvision's and Detectron2's networks give the same features."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torchvision
from torch import Tensor, nn

from cwrgp.models.resnet import ARCHITECTURES

STAGES = ("res2", "res3", "res4", "res5")

# Largest difference in float64 that passes, relative to the largest feature of the stage. Both
# networks do the same operations, so that anything above rounding means different weights.
TOLERANCE_FLOAT64 = 1e-9


@dataclass(frozen=True)
class Verification:
    """The largest differences of res2..res5 between torchvision's network and Detectron2's.

    Attributes:
        float64: largest over all stages in float64, relative to the stage's largest feature.
        float32: the same in float32.
    """

    float64: float
    float32: float


def verify(
    encoder_state: Mapping[str, Tensor],
    d2_state: Mapping[str, Tensor],
    arch: str,
    *,
    stride_in_1x1: bool = False,
) -> Verification:
    """Proves that two state dicts are the same network, by running both on the same input.

    Both are loaded strictly, torchvision's into ``torchvision.models.<arch>`` and the other into
    Detectron2's own backbone, and compared in evaluation mode on a seeded random image of 96x64
    pixels, at the outputs of all four stages.

    Args:
        encoder_state: under torchvision's names, without ``fc``; float32 or float64.
        d2_state: under Detectron2's names.
        arch: a key of `cwrgp.models.resnet.ARCHITECTURES`.
        stride_in_1x1: whether bottleneck blocks stride in their first convolution: then
            torchvision's network is changed to do so.

    Returns:
        The largest relative differences; the one in float64 is within `TOLERANCE_FLOAT64`.

    Raises:
        ValueError: they differ, one does not load, or the features are not finite.
    """
    differences = {}
    for dtype in (torch.float64, torch.float32):
        # One network at a time, so that only one copy of the weights is alive.
        expected = _features(_torchvision_network(arch, encoder_state, stride_in_1x1), dtype)
        found = _features(_detectron2_backbone(arch, d2_state, stride_in_1x1), dtype)
        differences[dtype] = {
            stage: _relative_difference(expected[stage], found[stage], stage) for stage in STAGES
        }
    stage, largest = max(differences[torch.float64].items(), key=lambda item: item[1])
    if not largest <= TOLERANCE_FLOAT64:
        raise ValueError(
            f"the proof failed: {stage} of Detectron2's backbone differs from torchvision's by"
            f" {largest:.1e} (relative, float64; at most {TOLERANCE_FLOAT64:.0e} is allowed)"
        )
    return Verification(largest, max(differences[torch.float32].values()))


def resnet_config(arch: str, *, stride_in_1x1: bool = False) -> dict[str, Any]:
    """The keys of Detectron2's ``MODEL.RESNETS`` that describe an architecture.

    Args:
        arch: a key of `cwrgp.models.resnet.ARCHITECTURES`.
        stride_in_1x1: where bottleneck blocks stride; torchvision's do so in the 3x3 convolution.
    """
    layout = ARCHITECTURES[arch]
    return {
        "DEPTH": layout.depth,
        "RES2_OUT_CHANNELS": layout.stage_channels[0],
        "NUM_GROUPS": layout.groups,
        "WIDTH_PER_GROUP": layout.width,
        "STRIDE_IN_1X1": stride_in_1x1,
    }


class _Stages(nn.Module):
    """The outputs of a torchvision ResNet's four stages under Detectron2's names."""

    def __init__(self, network: torchvision.models.ResNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        net: Any = self.network
        x = net.maxpool(net.relu(net.bn1(net.conv1(images))))
        features = {}
        layers = (net.layer1, net.layer2, net.layer3, net.layer4)
        for stage, layer in zip(STAGES, layers, strict=True):
            features[stage] = x = layer(x)
        return features


def _torchvision_network(
    arch: str, state_dict: Mapping[str, Tensor], stride_in_1x1: bool
) -> nn.Module:
    with torch.device("meta"):
        network = getattr(torchvision.models, arch)(weights=None)
    network.fc = nn.Identity()
    if stride_in_1x1:
        for layer in (network.layer2, network.layer3, network.layer4):
            first, second = layer[0].conv1, layer[0].conv2
            first.stride, second.stride = second.stride, first.stride
    _load_strictly(network, state_dict, f"torchvision's {arch}")
    return _Stages(network)


def _detectron2_backbone(
    arch: str, state_dict: Mapping[str, Tensor], stride_in_1x1: bool
) -> nn.Module:
    # Only the proof itself needs Detectron2; a conversion without proof does not.
    from detectron2.config import get_cfg
    from detectron2.layers import ShapeSpec
    from detectron2.modeling.backbone import build_resnet_backbone

    cfg = get_cfg()
    cfg.MODEL.BACKBONE.FREEZE_AT = 0
    cfg.MODEL.RESNETS.NORM = "BN"
    cfg.MODEL.RESNETS.OUT_FEATURES = list(STAGES)
    cfg.MODEL.RESNETS.update(resnet_config(arch, stride_in_1x1=stride_in_1x1))
    with torch.device("meta"):
        backbone = build_resnet_backbone(cfg, ShapeSpec(channels=3))
    _load_strictly(backbone, state_dict, f"Detectron2's {arch}")
    return backbone


def _load_strictly(network: nn.Module, state_dict: Mapping[str, Tensor], what: str) -> None:
    try:
        # A plain dict carries no version, so that BatchNorm fills in a missing num_batches_tracked,
        # which it does not use; every other tensor must be there.
        network.load_state_dict(dict(state_dict), strict=True, assign=True)
    except RuntimeError as error:
        raise ValueError(f"the proof failed: {what} does not load: {error}") from error


@torch.no_grad()
def _features(network: nn.Module, dtype: torch.dtype) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(1, 3, 96, 64, generator=generator, dtype=torch.float64)
    for module in network.modules():
        if module._parameters or module._buffers:
            module.forward = partial(_forward_in, dtype, module, module.forward)
    return network.eval()(images.to(dtype))


def _forward_in(
    dtype: torch.dtype, module: nn.Module, forward: Callable[[Tensor], Tensor], x: Tensor
) -> Tensor:
    """Runs one layer in another precision; the network as a whole would take twice its memory."""
    stored: list[tuple[Any, str, Tensor]] = [
        (place, name, tensor)
        for place in (module._parameters, module._buffers)
        for name, tensor in place.items()
        if tensor is not None and tensor.is_floating_point()
    ]
    for place, name, tensor in stored:
        place[name] = tensor.to(dtype)
    try:
        return forward(x)
    finally:
        for place, name, tensor in stored:
            place[name] = tensor


def _relative_difference(expected: Tensor, found: Tensor, stage: str) -> float:
    if expected.shape != found.shape:
        raise ValueError(f"the proof failed: {stage} is {found.shape}, expected {expected.shape}")
    largest = expected.abs().max().item()
    if not 0 < largest < float("inf"):  # NaN compares false too
        raise ValueError(f"the weights are broken: the largest feature of {stage} is {largest}")
    return (expected - found).abs().max().item() / largest
