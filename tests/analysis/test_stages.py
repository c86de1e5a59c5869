"""Pooled stages against torchvision's own forward pass."""

from __future__ import annotations

import pytest
import torch
import torchvision

from cwrgp.analysis.stages import STAGES, PooledStages


@pytest.mark.parametrize("arch", ["resnet18", "resnet50"])
def test_stages_are_those_of_the_network(arch: str) -> None:
    torch.manual_seed(0)
    resnet = getattr(torchvision.models, arch)(weights=None).eval()
    resnet.fc = torch.nn.Identity()
    images, hooked = torch.randn(2, 3, 64, 64), {}
    for name in STAGES:
        getattr(resnet, name).register_forward_hook(
            lambda module, inputs, output, name=name: hooked.__setitem__(name, output)
        )
    stages = PooledStages(resnet, arch)
    with torch.no_grad():
        found = stages.split(stages(images))
        features = resnet(images)
    assert list(found) == list(STAGES)
    for name in STAGES:
        torch.testing.assert_close(found[name], hooked[name].mean((2, 3)))
    torch.testing.assert_close(found["layer4"], features)
