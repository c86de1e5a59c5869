"""The table of ResNets against torchvision's and Detectron2's own networks."""

from __future__ import annotations

import pytest
import torch
import torchvision
from detectron2.modeling.backbone.resnet import ResNet

from cwrgp.models.resnet import ARCHITECTURES, BY_DEPTH, STEMS


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_the_table_describes_torchvisions_networks(arch: str) -> None:
    with torch.device("meta"):
        network = getattr(torchvision.models, arch)(weights=None)
    layout = ARCHITECTURES[arch]
    layers = [network.layer1, network.layer2, network.layer3, network.layer4]
    assert layout.blocks == tuple(len(layer) for layer in layers)
    assert layout.bottleneck == hasattr(network.layer1[0], "conv3")
    last = "conv3" if layout.bottleneck else "conv2"
    assert layout.stage_channels == tuple(getattr(x[-1], last).out_channels for x in layers)
    middle = network.layer1[0].conv2
    assert (layout.groups, layout.width) == (middle.groups, middle.in_channels // middle.groups)
    stem = STEMS["imagenet"]
    assert network.conv1.kernel_size == (stem.kernel,) * 2
    assert network.conv1.stride == (stem.stride,) * 2


@pytest.mark.parametrize("depth", BY_DEPTH)
def test_depths_are_those_of_detectron2(depth: int) -> None:
    stages = ResNet.make_default_stages(depth)
    layout = BY_DEPTH[depth]
    assert layout.depth == depth
    assert layout.blocks == tuple(map(len, stages))
    assert layout.stage_channels == tuple(stage[-1].out_channels for stage in stages)
